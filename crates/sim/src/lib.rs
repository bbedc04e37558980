//! Virtual clock, links, disks and swarms around the very same engine.
