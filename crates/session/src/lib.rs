//! Embeddable BitTorrent: add, pause, resume, remove, status, events.
