#![no_main]
piecemeal_fuzz::target!(piecemeal_fuzz::package::resume_facts);
