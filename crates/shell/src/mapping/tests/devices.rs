//! UPnP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

const SSDP_PORT: u16 = 1900;

const DESCRIPTION: &str = r#"<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
<controlURL>/control</controlURL><SCPDURL>/actions.xml</SCPDURL>
</service></serviceList></device></deviceList></device></deviceList></device></root>"#;

/// What the device can be told: an action, and its arguments.
const ACTIONS: [(&str, &[&str]); 3] = [
    ("GetExternalIPAddress", &[]),
    (
        "AddPortMapping",
        &[
            "NewRemoteHost",
            "NewExternalPort",
            "NewProtocol",
            "NewInternalPort",
            "NewInternalClient",
            "NewEnabled",
            "NewPortMappingDescription",
            "NewLeaseDuration",
        ],
    ),
    ("DeletePortMapping", &["NewRemoteHost", "NewExternalPort", "NewProtocol"]),
];

fn actions() -> String {
    let action = |(name, arguments): (&str, &[&str])| {
        let argument =
            |name: &&str| format!("<argument><name>{name}</name><direction>in</direction></argument>");
        let arguments: String = arguments.iter().map(argument).collect();
        format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
    };
    let all: String = ACTIONS.into_iter().map(action).collect();
    format!(r#"<?xml version="1.0"?><scpd><actionList>{all}</actionList></scpd>"#)
}

/// One request: its first line, and its body.
fn read(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut len) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        len = line.strip_prefix("content-length:").map_or(len, |len| len.trim().parse().unwrap());
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    (first, String::from_utf8(body).unwrap())
}

fn field<'a>(body: &'a str, name: &str) -> &'a str {
    let rest = body.split_once(&format!("<{name}>")).map_or("", |(_, rest)| rest);
    rest.split_once('<').map_or("", |(value, _)| value)
}

/// A router that maps ports; `refuse` may say why not. It tells of each mapping it made or took back.
fn device(at: Ipv4Addr, refuse: impl Fn(&str) -> Option<u16> + Send + 'static) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind((at, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = channel();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let (first, body) = read(&stream);
            let action =
                ACTIONS.map(|(name, _)| name).into_iter().find(|name| body.contains(&format!(":{name} ")));
            let (status, content) = match (first.split(' ').nth(1), action) {
                (Some("/description.xml"), _) => ("200 OK", DESCRIPTION.to_owned()),
                (Some("/actions.xml"), _) => ("200 OK", actions()),
                (Some("/control"), Some(action)) => match refuse(&body) {
                    None => {
                        let words = [
                            "NewProtocol",
                            "NewExternalPort",
                            "NewInternalClient",
                            "NewInternalPort",
                            "NewLeaseDuration",
                        ];
                        let words: Vec<_> = words.iter().map(|word| field(&body, word)).collect();
                        let _ = tell.send(format!("{action} {}", words.join(" ")));
                        let answer = if action == "GetExternalIPAddress" {
                            "<NewExternalIPAddress>203.0.113.7</NewExternalIPAddress>"
                        } else {
                            ""
                        };
                        (
                            "200 OK",
                            soap(&format!(
                                r#"<u:{action}Response xmlns:u="urn:x">{answer}</u:{action}Response>"#
                            )),
                        )
                    }
                    Some(code) => (
                        "500 Internal Server Error",
                        soap(&format!(
                            "<s:Fault><detail><UPnPError><errorCode>{code}</errorCode><errorDescription>no</errorDescription></UPnPError></detail></s:Fault>"
                        )),
                    ),
                },
                other => panic!("{other:?} {body}"),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                content.len()
            );
            stream.write_all(format!("{head}{content}").as_bytes()).unwrap();
        }
    });
    (port, told)
}

fn soap(body: &str) -> String {
    format!(
        r#"<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>{body}</s:Body></s:Envelope>"#
    )
}

fn found_at(location: &str) -> Vec<u8> {
    let target = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
    format!("HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {target}\r\nEXT:\r\nLOCATION: {location}\r\n\r\n").into_bytes()
}

/// Answers searches with these places, in order, until it is the last for good.
fn answers(at: Ipv4Addr, mut locations: Vec<String>) {
    serve(at, SSDP_PORT, move |socket, bytes, from| {
        assert!(bytes.starts_with(b"M-SEARCH * HTTP/1.1\r\n"), "a search");
        socket.send_to(&found_at(&locations[0]), from).unwrap();
        if locations.len() > 1 {
            locations.remove(0);
        }
    });
}

fn reach(port: u16) -> Option<Reach> {
    let external = Some(Ipv4Addr::new(203, 0, 113, 7).into());
    Some(Reach { by: ReachedBy::Upnp, port, external, lasts: Duration::from_secs(3600) })
}

#[test]
fn a_device_maps_and_forgets() {
    let at = router(20);
    let (port, asked) = device(at, |_| None);
    answers(at, vec![format!("http://{at}:{port}/description.xml")]);
    let run = Run::with(at);
    assert_eq!(run.told(), reach(OURS));
    run.stop();
    let mut asked: Vec<_> = asked.try_iter().collect();
    asked[3..].sort();
    let line = |text: &str| text.to_owned();
    assert_eq!(
        asked,
        [
            line("AddPortMapping TCP 6881 127.0.0.1 6881 3600"),
            line("GetExternalIPAddress     "),
            line("AddPortMapping UDP 6881 127.0.0.1 6881 3600"),
            line("DeletePortMapping TCP 6881   "),
            line("DeletePortMapping UDP 6881   "),
        ]
    );
}

#[test]
fn a_port_that_is_taken_is_done_without_and_old_devices_never_forget() {
    let at = router(21);
    let (port, asked) = device(at, |body| match field(body, "NewExternalPort") {
        "" => None,
        "6881" => Some(718),
        _ if !matches!(field(body, "NewLeaseDuration"), "" | "0") && body.contains("UDP") => Some(725),
        _ => None,
    });
    // The first answer leads nowhere; the router gives another.
    answers(
        at,
        vec![format!("http://{at}:1/description.xml"), format!("http://{at}:{port}/description.xml")],
    );
    let run = Run::with(at);
    let told = run.told().unwrap();
    assert_ne!(told.port, OURS);
    assert_eq!(Some(told), reach(told.port));
    run.stop();
    let asked: Vec<_> = asked.try_iter().collect();
    assert_eq!(asked[0], format!("AddPortMapping TCP {} 127.0.0.1 6881 3600", told.port));
    assert_eq!(asked[2], format!("AddPortMapping UDP {} 127.0.0.1 6881 0", told.port));
    assert_eq!(asked.iter().filter(|line| line.starts_with("DeletePortMapping")).count(), 2);
}

#[test]
fn nobody_but_the_router_is_asked_for_anything() {
    let at = router(22);
    let elsewhere = TcpListener::bind((Ipv4Addr::new(127, 77, 22, 2), 0)).unwrap();
    let place = format!("http://{}/description.xml", elsewhere.local_addr().unwrap());
    // The router's own answer is forged to lead elsewhere; and somebody else answers with a place of their own, from
    // the port that the router has.
    let forger = UdpSocket::bind((Ipv4Addr::new(127, 77, 22, 2), SSDP_PORT)).unwrap();
    serve(at, SSDP_PORT, move |socket, _, from| {
        forger.send_to(&found_at(&place), from).unwrap();
        socket.send_to(&found_at(&place), from).unwrap();
        socket.send_to(&found_at("file:///etc/passwd"), from).unwrap();
        socket.send_to(&[0xFF; 1500], from).unwrap();
    });
    let run = Run::without_device(at);
    assert_eq!(run.told(), None);
    elsewhere.set_nonblocking(true).unwrap();
    assert_eq!(elsewhere.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    run.stop();
}

#[test]
fn documents_that_never_end_or_grow_are_not_read_to_the_end() {
    // Deep and long; and a thousand million of the same word, by entities of entities.
    let deep = vec![b"<device>".repeat(4096); 1024];
    let entity = |at: char, of: char| format!("<!ENTITY {at} \"{}\">", format!("&{of};").repeat(10));
    let all: String = ('b'..='j').zip('a'..).map(|(at, of)| entity(at, of)).collect();
    let bomb = format!("<?xml version=\"1.0\"?><!DOCTYPE r [<!ENTITY a \"word\">{all}]><root>&j;</root>");
    for (number, parts) in [(23, deep), (24, vec![bomb.into_bytes()])] {
        let at = router(number);
        let listener = TcpListener::bind((at, 0)).unwrap();
        answers(at, vec![format!("http://{}/description.xml", listener.local_addr().unwrap())]);
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                read(&stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
                let _ = parts.iter().try_for_each(|part| stream.write_all(part));
            }
        });
        let run = Run::without_device(at);
        assert_eq!(run.told(), None, "{number}");
        run.stop();
    }
}
