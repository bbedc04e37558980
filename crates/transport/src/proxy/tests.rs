//! Transcripts with proxies of both kinds, whole and split, refusals, and datagrams there and back.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn name(host: &str, port: u16) -> Target {
    Target::Name { host: host.to_owned(), port }
}

fn auth(user: &str, password: &str) -> Option<Credentials> {
    Some(Credentials { user: user.to_owned(), password: password.to_owned() })
}

fn socks(auth: Option<Credentials>) -> Proxy {
    Proxy::Socks5 { auth }
}

fn http(auth: Option<Credentials>) -> Proxy {
    Proxy::HttpConnect { auth }
}

/// What was said and what came of it, if the proxy's bytes come in pieces that end at `cuts`.
fn run(mut talk: Talk, heard: &[u8], cuts: &[usize]) -> (Vec<u8>, usize, Result<Step, Fault>) {
    let (mut sent, mut eaten) = (talk.to_send(), 0);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (heard.len() + 1)).chain([heard.len()]).collect();
    cuts.sort_unstable();
    for cut in cuts {
        let part = &heard[eaten.min(cut)..cut];
        match talk.hear(part) {
            Ok((count, step)) => {
                eaten += count;
                sent.extend(talk.to_send());
                if step != Step::More {
                    assert_eq!(talk.hear(&heard[eaten..]), Ok((0, step)), "what is over stays over");
                    return (sent, eaten, Ok(step));
                }
                assert_eq!(count, part.len(), "what is not over eats all");
            }
            Err(fault) => {
                assert_eq!(talk.hear(heard), Err(fault.clone()));
                assert_eq!((talk.hung_up(), talk.to_send()), (fault.clone(), vec![]));
                return (sent, eaten, Err(fault));
            }
        }
    }
    (sent, eaten, Ok(Step::More))
}

fn connected(bound: &str) -> Step {
    Step::Connected { bound: Some(at(bound)) }
}

/// A good conversation: who asks, what is said, what is heard, what comes of it.
type Transcript = (Talk, Vec<u8>, Vec<u8>, Step);

const OVER: Step = Step::Connected { bound: None };
const OK_V4: &[u8] = b"\x05\x00\x05\x00\x00\x01\x09\x08\x07\x06\x10\x01";

fn transcripts() -> Vec<Transcript> {
    let mut all = connects();
    all.extend(associates());
    all.extend(webs());
    all
}

fn connect(proxy: Proxy, target: Target) -> Talk {
    Talk::connect(&proxy, &target).unwrap()
}

fn connects() -> Vec<Transcript> {
    let v4 = Target::from(at("1.2.3.4:80"));
    let v6 = Target::from(at("[2001:db8::1]:80"));
    let clothed = Target::Addr(at("[::ffff:1.2.3.4]:80"));
    let ip6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let login4 = b"\x05\x02\x01\x00\x05\x00\x00\x01\x09\x08\x07\x06\x10\x01";
    let four = connected("9.8.7.6:4097");
    let ask4 = b"\x05\x01\x00\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50";
    let own_ip = [&b"\x05\x00\x05\x00\x00\x04"[..], &ip6, b"\x10\x01"].concat();
    vec![
        (connect(socks(None), v4.clone()), ask4.to_vec(), OK_V4.to_vec(), four),
        (connect(socks(None), clothed), ask4.to_vec(), OK_V4.to_vec(), four),
        (
            connect(socks(None), v6),
            [&b"\x05\x01\x00\x05\x01\x00\x04"[..], &ip6, b"\x00\x50"].concat(),
            own_ip,
            connected("[2001:db8::1]:4097"),
        ),
        (
            connect(socks(None), name("t.example", 80)),
            b"\x05\x01\x00\x05\x01\x00\x03\x09t.example\x00\x50".to_vec(),
            b"\x05\x00\x05\x00\x7f\x03\x03abc\x00\x00".to_vec(),
            OVER,
        ),
        (
            connect(socks(auth("me", "pass")), v4.clone()),
            b"\x05\x02\x00\x02\x01\x02me\x04pass\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50".to_vec(),
            login4.to_vec(),
            four,
        ),
        // Offered, and not asked for.
        (
            connect(socks(auth("me", "pass")), v4.clone()),
            b"\x05\x02\x00\x02\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50".to_vec(),
            OK_V4.to_vec(),
            four,
        ),
    ]
}

fn associates() -> [Transcript; 4] {
    let associate = b"\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00";
    let relays = [
        (OK_V4, "9.8.7.6:4097"),
        (b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x10\x01", "0.0.0.0:4097"),
        (b"\x05\x00\x05\x00\x00\x03\x05proxy\x10\x01", "0.0.0.0:4097"),
        (b"\x05\x00\x05\x00\x00\x03\x00\x10\x01", "0.0.0.0:4097"),
    ];
    relays.map(|(heard, relay)| {
        let talk = Talk::associate(None).unwrap();
        (talk, associate.to_vec(), heard.to_vec(), Step::Associated { relay: at(relay) })
    })
}

fn webs() -> Vec<Transcript> {
    let v4 = Target::from(at("1.2.3.4:80"));
    let asks = [
        (v4.clone(), None, "CONNECT 1.2.3.4:80 HTTP/1.1\r\nHost: 1.2.3.4:80\r\n\r\n"),
        (
            Target::from(at("[2001:db8::1]:80")),
            None,
            "CONNECT [2001:db8::1]:80 HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n",
        ),
        (
            name("t.example", 8080),
            auth("Aladdin", "open sesame"),
            "CONNECT t.example:8080 HTTP/1.1\r\nHost: t.example:8080\r\n\
             Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n",
        ),
    ];
    let mut all = asks
        .map(|(target, auth, sent)| {
            let heard = b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec();
            (connect(http(auth), target), sent.as_bytes().to_vec(), heard, OVER)
        })
        .into_iter()
        .collect::<Vec<_>>();
    let answers: [&[u8]; 6] = [
        b"HTTP/1.0 200 OK\r\nProxy-agent: x/1\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1  204  \n\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nodd header\r\nX : y\r\n\r\n",
        b"HTTP/1.1 200 \xe4\r\n\r\n",
    ];
    all.extend(answers.map(|heard| {
        let sent = b"CONNECT 1.2.3.4:80 HTTP/1.1\r\nHost: 1.2.3.4:80\r\n\r\n";
        (connect(http(None), v4.clone()), sent.to_vec(), heard.to_vec(), OVER)
    }));
    all
}

#[test]
fn good_conversations_end_where_they_end() {
    for (talk, says, hears, end) in transcripts() {
        // What the target says first comes with the last word of the proxy.
        let with_more = [&hears[..], b"\x13BitTorrent"].concat();
        let (sent, eaten, step) = run(talk, &with_more, &[]);
        assert_eq!(sent.escape_ascii().to_string(), says.escape_ascii().to_string());
        assert_eq!((eaten, step), (hears.len(), Ok(end)), "{}", hears.escape_ascii());
    }
}

#[test]
fn a_conversation_that_is_cut_has_not_ended() {
    let rounds = transcripts().len();
    for round in 0..rounds {
        let len = transcripts()[round].2.len();
        for cut in 0..len {
            let (talk, _, hears, _) = transcripts().swap_remove(round);
            let (_, eaten, step) = run(talk, &hears[..cut], &[]);
            assert_eq!((eaten, step), (cut, Ok(Step::More)));
            let (mut talk, ..) = transcripts().swap_remove(round);
            talk.hear(&hears[..cut]).unwrap();
            assert!(matches!(talk.hung_up(), Fault::Closed(_)));
            assert_eq!(talk.hear(b"HTTP/1.1 200 OK\r\n\r\n"), Err(talk.hung_up()));
        }
    }
}

#[test]
fn we_speak_in_turn() {
    let proxy = socks(auth("me", "pass"));
    let mut talk = Talk::connect(&proxy, &name("t.example", 1)).unwrap();
    assert_eq!(talk.to_send(), b"\x05\x02\x00\x02");
    assert_eq!(talk.to_send(), b"");
    assert_eq!(talk.hear(b"\x05\x02"), Ok((2, Step::More)));
    assert_eq!(talk.to_send(), b"\x01\x02me\x04pass");
    assert_eq!(talk.hear(b"\x01"), Ok((1, Step::More)));
    assert_eq!(talk.to_send(), b"");
    assert_eq!(talk.hung_up().to_string(), "the proxy closed the connection instead of answering the login");
}

/// The faults that come of what is heard have these words.
fn told(table: Vec<(Talk, &[u8], &str)>) {
    for (talk, heard, words) in table {
        let (_, _, end) = run(talk, heard, &[]);
        let fault = end.expect_err(words);
        let text = fault.to_string();
        assert!(text.starts_with("the ") && text.contains(words) && !text.contains('\n'), "{text}");
    }
}

#[test]
fn a_no_of_socks_is_told_in_its_words() {
    let v4 = Target::from(at("1.2.3.4:80"));
    let talk = |proxy: Proxy| Talk::connect(&proxy, &v4).unwrap();
    let plain = || talk(socks(None));
    let login = || talk(socks(auth("me", "pass")));
    let table: Vec<(Talk, &[u8], &str)> = vec![
        (plain(), b"\x04\x5a", "does not speak SOCKS5: its answer begins with 0x04"),
        (plain(), b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak SOCKS5: its answer begins with 0x48"),
        (plain(), b"\x05\xff", "wants a user and a password (method 0xff)"),
        (login(), b"\x05\xff", "wants another login than user and password (method 0xff)"),
        (plain(), b"\x05\x02", "chose login method 2, which was not offered"),
        (login(), b"\x05\x01", "chose login method 1, which was not offered"),
        (login(), b"\x05\x02\x01\x01", "refused the user or the password (status 1)"),
        (login(), b"\x05\x02\x05\xff", "refused the user or the password (status 255)"),
        (login(), b"\x05\x02\x02", "answered the login in version 2, not 1"),
        (login(), b"\x05\x02\x01\x00\x04", "its answer begins with 0x04"),
        (plain(), b"\x05\x00\x05\x01", "the proxy says: general failure"),
        (plain(), b"\x05\x00\x05\x02", "its rules do not allow the connection"),
        (plain(), b"\x05\x00\x05\x03", "the network can not be reached"),
        (plain(), b"\x05\x00\x05\x04", "the host can not be reached"),
        (plain(), b"\x05\x00\x05\x05", "the host refused the connection"),
        (plain(), b"\x05\x00\x05\x06", "the time to live ran out"),
        (plain(), b"\x05\x00\x05\x07", "it does not know the command"),
        (plain(), b"\x05\x00\x05\x08", "it does not know that type of address"),
        (plain(), b"\x05\x00\x05\x09", "a reason without a name (reply 9)"),
        (plain(), b"\x05\x00\x05\x00\x00\x02", "an address of type 2, which does not exist"),
        (
            Talk::associate(None).unwrap(),
            b"\x05\x00\x05\x00\x00\x01\x01\x02\x03\x04\x00\x00",
            "named no port",
        ),
    ];
    told(table);
}

#[test]
fn a_no_of_http_is_told_in_its_words() {
    let v4 = Target::from(at("1.2.3.4:80"));
    let talk = |proxy: Proxy| Talk::connect(&proxy, &v4).unwrap();
    let long = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 9000]].concat();
    let many = [&b"HTTP/1.1 200 OK\r\n"[..], &b"a:b\r\n".repeat(101), b"\r\n"].concat();
    let ntlm = b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Digest realm=x\r\n\r\n";
    let basic = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: basic realm=x\r\n\r\n";
    told(vec![
        (talk(http(None)), b"SSH-2.0-x\r\n", "does not speak HTTP/1.1: its answer begins with \"S\""),
        (talk(http(None)), b"\x05\xff", "its answer begins with"),
        (talk(http(None)), b"HTTP/2 200\r\n\r\n", "its answer begins with \"HTTP/2\""),
        (talk(http(None)), b"HTTP/1.1 abc\r\n\r\n", "its answer begins with \"HTTP/1.1 abc\""),
        (talk(http(None)), b"HTTP/1.1\r\n\r\n", "its answer begins with \"HTTP/1.1\""),
        (talk(http(None)), &long, "more than 8192 bytes"),
        (talk(http(None)), &many, "or 100 headers"),
        (talk(http(None)), b"HTTP/1.1 407 Who?\r\n\r\n", "wants a user and a password (407 Who?)"),
        (
            talk(http(auth("me", ""))),
            basic,
            "refused the user or the password (407 Proxy Authentication Required)",
        ),
        (
            talk(http(auth("me", "x"))),
            ntlm,
            "wants another login than user and password (NTLM, Digest realm=x)",
        ),
        (talk(http(None)), b"HTTP/1.1 403 Forbidden\r\n\r\n", "the proxy says: 403 Forbidden"),
        (talk(http(None)), b"HTTP/1.1 503 \x09no\r\n\r\n", "the proxy says: 503 no"),
        (talk(http(None)), b"HTTP/1.1 101 Switching\r\n\r\n", "the proxy says: 101 Switching"),
        (talk(http(None)), b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "the proxy says: 302 Found"),
    ]);
}

#[test]
fn an_endless_answer_is_bounded() {
    let target = Target::from(at("1.2.3.4:80"));
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    for noise in [interim, [b"HTTP/1.1 200 O".to_vec(), vec![b'k'; 10_000]].concat()] {
        let mut talk = Talk::connect(&http(None), &target).unwrap();
        assert_eq!(talk.hear(&noise[..8192]), Ok((8192, Step::More)));
        assert_eq!(talk.hear(&noise[8192..]), Err(Fault::LongHead));
    }
}

#[test]
fn whose_fault_it_is() {
    let (of_target, of_proxy) = ([3, 4, 5, 6], [1, 2, 7, 8, 9]);
    assert!(of_target.into_iter().all(|code| Fault::Refused(Reply(code)).blames_target()));
    assert!(!of_proxy.into_iter().any(|code| Fault::Refused(Reply(code)).blames_target()));
    assert!(Fault::Status { code: 504, reason: String::new() }.blames_target());
    assert!(!Fault::Closed("x").blames_target());
}

#[test]
fn what_can_not_be_said_is_refused_before() {
    let good = Target::from(at("1.2.3.4:80"));
    let long = "x".repeat(256);
    let names = ["", "a b", "a\r\nHost: b", "a/b", "a@b", "a:b", "\u{fc}.example", "[::1]", &long];
    for proxy in [socks(None), http(None)] {
        for host in names {
            assert!(
                matches!(Talk::connect(&proxy, &name(host, 1)), Err(Fault::Name(shown)) if shown.len() <= 80)
            );
        }
        assert!(Talk::connect(&proxy, &name(&long[1..], 1)).is_ok());
        assert_eq!(Talk::connect(&proxy, &name("a", 0)).unwrap_err(), Fault::NoPort);
        assert_eq!(Talk::connect(&proxy, &Target::from(at("1.2.3.4:0"))).unwrap_err(), Fault::NoPort);
    }
    let shy = [("", "x"), ("x", ""), (&long, "x"), ("x", &long)];
    for (user, password) in shy {
        let auth = auth(user, password);
        assert!(matches!(Talk::associate(auth.as_ref()), Err(Fault::Credentials(_))));
        assert!(matches!(Talk::connect(&socks(auth), &good), Err(Fault::Credentials(_))));
    }
    for (user, password) in [("", "x"), ("a:b", "x"), ("a\n", "x"), ("a", "x\r"), (&long, "x"), ("x", &long)]
    {
        let fault = Talk::connect(&http(auth(user, password)), &good);
        assert!(matches!(fault, Err(Fault::Credentials(_))), "{user:?} {password:?}");
    }
    assert!(Talk::associate(auth(&long[1..], &long[1..]).as_ref()).is_ok());
}

#[test]
fn a_password_is_not_shown() {
    let proxy = socks(auth("me", "secret"));
    let talk = Talk::connect(&proxy, &name("a", 1)).unwrap();
    assert!(!format!("{proxy:?} {talk:?}").contains("secret"));
}

#[test]
fn datagrams_as_the_rfc_has_them() {
    let table: [(Target, &[u8]); 3] = [
        (Target::from(at("1.2.3.4:6881")), b"\0\0\0\x01\x01\x02\x03\x04\x1a\xe1hello"),
        (Target::from(at("[::1]:6881")), b"\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1hello"),
        (name("t.example", 6881), b"\0\0\0\x03\x09t.example\x1a\xe1hello"),
    ];
    for (target, bytes) in table {
        let mut out = b"before".to_vec();
        wrap_into(&target, b"hello", &mut out);
        assert_eq!(&out[6..], bytes);
        assert_eq!(datagram::header_bytes(&target), bytes.len() - 5);
        assert_eq!(datagram::unwrap(bytes), Ok((target, &b"hello"[..])));
        for cut in 0..bytes.len() - 5 {
            assert_eq!(datagram::unwrap(&bytes[..cut]), Err(Fault::ShortDatagram(cut)));
        }
    }
}

fn wrap_into(to: &Target, payload: &[u8], out: &mut Vec<u8>) {
    datagram::wrap(to, payload, out).unwrap();
}

#[test]
fn hostile_datagrams() {
    let table: [(&[u8], Fault); 8] = [
        (b"\0\0\x01\x01\x01\x02\x03\x04\x1a\xe1x", Fault::Fragment(1)),
        (b"\0\0\xff", Fault::Fragment(255)),
        (b"\0\0\0\x02\x01\x02\x03\x04\x1a\xe1x", Fault::AddressType(2)),
        (b"\0\0\0\x03\0\x1a\xe1x", Fault::Name(String::new())),
        (b"\0\0\0\x03\x03a b\x1a\xe1x", Fault::Name("a b".to_owned())),
        (b"\0\0\0\x03\x02\xff\x1b\x1a\xe1x", Fault::Name("\u{fffd}".to_owned())),
        (b"\0\0\0\x01\x01\x02\x03\x04\0\0x", Fault::NoPort),
        (b"\0\0\0\x03\xffabc", Fault::ShortDatagram(8)),
    ];
    for (bytes, fault) in table {
        assert_eq!(datagram::unwrap(bytes), Err(fault));
    }
    // Reserved bytes are not looked at, and an address comes out of its clothes.
    let clothed = Target::Addr(at("[::ffff:1.2.3.4]:5"));
    let mut out = Vec::new();
    datagram::wrap(&clothed, b"", &mut out).unwrap();
    out[..2].fill(0xaa);
    assert_eq!(datagram::unwrap(&out), Ok((Target::from(at("1.2.3.4:5")), &b""[..])));
    out.clear();
    assert!(datagram::wrap(&name("a b", 1), b"x", &mut out).is_err() && out.is_empty());
}

fn target() -> impl Strategy<Value = Target> {
    let v4 = any::<[u8; 4]>().prop_map(|ip| Ipv4Addr::from(ip).into());
    let v6 = any::<[u8; 16]>().prop_map(|ip| Ipv6Addr::from(ip).into());
    let addr =
        (prop_oneof![v4, v6], 1..=u16::MAX).prop_map(|(ip, port)| Target::from(SocketAddr::new(ip, port)));
    let name = ("[a-zA-Z0-9._-]{1,255}", 1..=u16::MAX).prop_map(|(host, port)| Target::Name { host, port });
    prop_oneof![addr, name]
}

proptest! {
    #[test]
    fn a_datagram_comes_back(to in target(), payload: Vec<u8>) {
        let mut out = Vec::new();
        wrap_into(&to, &payload, &mut out);
        prop_assert_eq!(out.len(), datagram::header_bytes(&to) + payload.len());
        prop_assert!(datagram::header_bytes(&to) <= datagram::MAX_HEADER_BYTES);
        prop_assert_eq!(datagram::unwrap(&out), Ok((to, &payload[..])));
    }

    #[test]
    fn however_it_is_split(round in 0..19_usize, cuts in prop::collection::vec(any::<usize>(), 0..8)) {
        prop_assert_eq!(transcripts().len(), 19);
        let (talk, says, hears, end) = transcripts().swap_remove(round);
        prop_assert_eq!(run(talk, &hears, &cuts), (says, hears.len(), Ok(end)));
    }

    /// What is damaged comes to the same end in one piece and byte by byte.
    #[test]
    fn however_it_is_damaged(round in 0..19_usize, place: usize, with: u8, tail: Vec<u8>) {
        let (talk, _, mut hears, _) = transcripts().swap_remove(round);
        let place = place % hears.len();
        hears[place] ^= with;
        hears.extend(tail);
        let cuts: Vec<usize> = (0..hears.len()).collect();
        let (again, ..) = transcripts().swap_remove(round);
        let (whole, split) = (run(talk, &hears, &[]), run(again, &hears, &cuts));
        prop_assert_eq!(&whole.2, &split.2);
        if whole.2.is_ok() {
            prop_assert_eq!(whole, split);
        }
    }
}
