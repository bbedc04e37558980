//! Work on content without a swarm: making and verifying torrents on all cores.
