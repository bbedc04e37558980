#![no_main]
piecemeal_fuzz::target!(piecemeal_fuzz::transport::utp_stream);
