//! HTTP/1.1 `CONNECT` (RFC 9110, 9.3.6): one request, and the head of its answer.
//!
//! Owns the request and where the head ends. After a 2xx there is no body, whatever the headers say; what follows is
//! the target's.

use data_encoding::BASE64;
use httparse::{EMPTY_HEADER, Header, ParserConfig, Response, Status};
use piecemeal_wire::text::one_line;

use super::{Credentials, Fault, MAX_TEXT_BYTES, Step, Target, address};

/// Bytes of the longest head, those of interim answers counted in.
pub(super) const MAX_HEAD_BYTES: usize = 8 << 10;
/// Headers of an answer; real ones have a dozen.
pub(super) const MAX_HEADERS: usize = 100;
/// Of what a proxy says, so much is shown.
const SHOWN_BYTES: usize = 80;
const BEGINNING: &[u8] = b"HTTP/1.";

pub(super) struct Http {
    has_auth: bool,
    /// The head under way. Bound: [`MAX_HEAD_BYTES`].
    heard: Vec<u8>,
    /// Bytes of interim answers before it.
    interim: usize,
}

impl Http {
    pub(super) fn connect(
        auth: Option<&Credentials>,
        target: &Target,
        out: &mut Vec<u8>,
    ) -> Result<Http, Fault> {
        address::check(target)?;
        let target = match target {
            Target::Addr(addr) => Target::from(*addr),
            name => name.clone(),
        };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(auth) = auth {
            request.push_str("Proxy-Authorization: Basic ");
            request.push_str(&basic(auth)?);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        out.extend(request.as_bytes());
        Ok(Http { has_auth: auth.is_some(), heard: Vec::new(), interim: 0 })
    }

    pub(super) fn hear(&mut self, bytes: &[u8]) -> Result<(usize, Step), Fault> {
        for (at, byte) in bytes.iter().enumerate() {
            if self.interim + self.heard.len() == MAX_HEAD_BYTES {
                return Err(Fault::LongHead);
            }
            self.heard.push(*byte);
            let begins = self.heard.len().min(BEGINNING.len());
            if self.heard[..begins] != BEGINNING[..begins] {
                return Err(self.not_http());
            }
            let ends = self.heard.ends_with(b"\n\r\n") || self.heard.ends_with(b"\n\n");
            if ends && let step @ Step::Connected { .. } = self.judge()? {
                return Ok((at + 1, step));
            }
        }
        Ok((bytes.len(), Step::More))
    }

    /// A whole head was heard.
    fn judge(&mut self) -> Result<Step, Fault> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut answer = Response::new(&mut headers);
        // Which headers there are is of little interest, so odd ones spoil nothing.
        let mut parser = ParserConfig::default();
        parser.ignore_invalid_headers_in_responses(true).allow_spaces_after_header_name_in_responses(true);
        parser.allow_multiple_spaces_in_response_status_delimiters(true);
        match parser.parse_response(&mut answer, &self.heard) {
            Ok(Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Fault::LongHead),
            Ok(Status::Partial) | Err(_) => return Err(self.not_http()),
        }
        let code = answer.code.unwrap_or_default();
        let reason = one_line(answer.reason.unwrap_or_default().as_bytes(), SHOWN_BYTES);
        match code {
            // 101 would be an answer to an Upgrade, which we did not ask for.
            100 | 102..=199 => {
                self.interim += self.heard.len();
                self.heard.clear();
                Ok(Step::More)
            }
            200..=299 => Ok(Step::Connected { bound: None }),
            407 => Err(self.login(answer.headers, &format!("407 {reason}"))),
            _ => Err(Fault::Status { code, reason }),
        }
    }

    /// Which login a 407 wants.
    fn login(&self, headers: &[Header<'_>], said: &str) -> Fault {
        let ways = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("proxy-authenticate"));
        let ways: Vec<_> = ways.map(|header| one_line(header.value, SHOWN_BYTES)).collect();
        let basic = |way: &String| way.get(..5).is_some_and(|way| way.eq_ignore_ascii_case("basic"));
        if !ways.is_empty() && !ways.iter().any(basic) {
            return Fault::LoginUnknown { said: one_line(ways.join(", ").as_bytes(), SHOWN_BYTES) };
        }
        let said = said.trim_end().to_owned();
        if self.has_auth { Fault::LoginRefused { said } } else { Fault::LoginWanted { said } }
    }

    fn not_http(&self) -> Fault {
        let line = self.heard.split(|byte| *byte == b'\n').next().unwrap_or_default();
        Fault::NotHttp(one_line(line, SHOWN_BYTES))
    }
}

fn basic(auth: &Credentials) -> Result<String, Fault> {
    let (user, password) = (&auth.user, &auth.password);
    let long = user.len().max(password.len()) > MAX_TEXT_BYTES;
    let odd = user.contains(':') || user.chars().chain(password.chars()).any(char::is_control);
    if user.is_empty() || long || odd {
        return Err(Fault::Credentials(
            "HTTP wants a user without colon, and at most 255 bytes without control characters",
        ));
    }
    Ok(BASE64.encode(format!("{user}:{password}").as_bytes()))
}
