#![no_main]
piecemeal_fuzz::target!(piecemeal_fuzz::discovery::dht_node);
