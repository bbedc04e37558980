#![no_main]
piecemeal_fuzz::target!(piecemeal_fuzz::wire::pex);
