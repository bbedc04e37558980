//! SOCKS5 over TCP: methods, login, request (RFC 1928, RFC 1929).
//!
//! Owns the order of the steps. Each answer has a length of its own, so nothing is read beyond the last one.

use std::net::{Ipv4Addr, SocketAddr};

use super::address::{self, MAX_ADDRESS_BYTES, Read};
use super::{Credentials, Fault, MAX_TEXT_BYTES, Reply, Step, Target};

const VERSION: u8 = 5;
/// Version of user and password (RFC 1929).
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const USER_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const UDP_ASSOCIATE: u8 = 3;

pub(super) struct Socks {
    stage: Stage,
    /// Version, length and user, length and password; empty if there are none.
    login: Vec<u8>,
    request: Vec<u8>,
    associate: bool,
    /// The answer under way. Bound: 3 + [`MAX_ADDRESS_BYTES`].
    heard: Vec<u8>,
}

/// Whose answer is awaited.
#[derive(Clone, Copy)]
enum Stage {
    Method,
    Login,
    Reply,
}

impl Socks {
    pub(super) fn connect(
        auth: Option<&Credentials>,
        target: &Target,
        out: &mut Vec<u8>,
    ) -> Result<Socks, Fault> {
        address::check(target)?;
        Socks::new(auth, CONNECT, target, out)
    }

    pub(super) fn associate(auth: Option<&Credentials>, out: &mut Vec<u8>) -> Result<Socks, Fault> {
        // Zeros: from where the datagrams will come is not known (RFC 1928, 4).
        let nowhere = Target::Addr(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        Socks::new(auth, UDP_ASSOCIATE, &nowhere, out)
    }

    fn new(
        auth: Option<&Credentials>,
        command: u8,
        target: &Target,
        out: &mut Vec<u8>,
    ) -> Result<Socks, Fault> {
        let login = auth.map(login).transpose()?.unwrap_or_default();
        let mut request = vec![VERSION, command, 0];
        address::write(target, &mut request);
        if login.is_empty() {
            out.extend([VERSION, 1, NO_LOGIN]);
        } else {
            out.extend([VERSION, 2, NO_LOGIN, USER_PASSWORD]);
        }
        let associate = command == UDP_ASSOCIATE;
        let heard = Vec::with_capacity(3 + MAX_ADDRESS_BYTES);
        Ok(Socks { stage: Stage::Method, login, request, associate, heard })
    }

    pub(super) fn hear(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, Step), Fault> {
        for (at, byte) in bytes.iter().enumerate() {
            self.heard.push(*byte);
            match self.judge(out)? {
                Step::More => {}
                end => return Ok((at + 1, end)),
            }
        }
        Ok((bytes.len(), Step::More))
    }

    pub(super) fn hung_up(&self) -> Fault {
        Fault::Closed(match self.stage {
            Stage::Method => "before it answered",
            Stage::Login => "instead of answering the login",
            Stage::Reply => "instead of answering the request",
        })
    }

    /// What has been heard so far, at every byte of it: what is wrong is said before the rest is awaited. Many proxies
    /// that refuse send no more than the first bytes.
    fn judge(&mut self, out: &mut Vec<u8>) -> Result<Step, Fault> {
        match (self.stage, &self.heard[..]) {
            (Stage::Login, [version, ..]) if ![LOGIN_VERSION, VERSION].contains(version) => {
                return Err(Fault::LoginVersion(*version));
            }
            (Stage::Method | Stage::Reply, [version, ..]) if *version != VERSION => {
                return Err(Fault::NotSocks5(*version));
            }
            (Stage::Method, [_, method, ..]) => {
                let method = *method;
                self.method(method, out)?;
            }
            (Stage::Login, [_, status, ..]) if *status != 0 => {
                return Err(Fault::LoginRefused { said: format!("status {status}") });
            }
            (Stage::Login, [_, _, ..]) => self.ask(out),
            (Stage::Reply, [_, code, ..]) if *code != 0 => return Err(Fault::Refused(Reply(*code))),
            (Stage::Reply, [_, _, _, place @ ..]) => {
                if let Some((place, _)) = address::read(place)? {
                    return self.done(place);
                }
            }
            _ => {}
        }
        Ok(Step::More)
    }

    fn method(&mut self, method: u8, out: &mut Vec<u8>) -> Result<(), Fault> {
        match method {
            NO_LOGIN => self.ask(out),
            USER_PASSWORD if !self.login.is_empty() => {
                out.append(&mut self.login);
                self.next(Stage::Login);
            }
            NO_METHOD => {
                let said = format!("method {method:#x}");
                return Err(if self.login.is_empty() {
                    Fault::LoginWanted { said }
                } else {
                    Fault::LoginUnknown { said }
                });
            }
            other => return Err(Fault::LoginUnasked(other)),
        }
        Ok(())
    }

    fn ask(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.request);
        self.next(Stage::Reply);
    }

    fn next(&mut self, stage: Stage) {
        self.stage = stage;
        self.heard.clear();
    }

    fn done(&self, place: Read<'_>) -> Result<Step, Fault> {
        if !self.associate {
            let bound = match place {
                Read::Addr(addr) => Some(SocketAddr::new(addr.ip().to_canonical(), addr.port())),
                Read::Name(..) => None,
            };
            return Ok(Step::Connected { bound });
        }
        let relay = match place {
            Read::Addr(addr) => SocketAddr::new(addr.ip().to_canonical(), addr.port()),
            // Whatever its name is, it is the proxy; and we ask no DNS.
            Read::Name(_, port) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        };
        if relay.port() == 0 { Err(Fault::NoRelayPort) } else { Ok(Step::Associated { relay }) }
    }
}

fn login(auth: &Credentials) -> Result<Vec<u8>, Fault> {
    let mut login = vec![LOGIN_VERSION];
    for text in [&auth.user, &auth.password] {
        if text.is_empty() || text.len() > MAX_TEXT_BYTES {
            return Err(Fault::Credentials("SOCKS5 wants a user and a password of 1 to 255 bytes each"));
        }
        login.push(text.len() as u8);
        login.extend(text.as_bytes());
    }
    Ok(login)
}
