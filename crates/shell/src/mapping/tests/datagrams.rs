//! PCP and NAT-PMP.

use super::*;

const PCP_PORT: u16 = crab_nat::GATEWAY_PORT;
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// A request to map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Asked {
    nonce: [u8; 12],
    /// As the internet protocol numbers them.
    tcp: bool,
    ours: u16,
    best: u16,
    lifetime_s: u32,
}

fn two(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn four(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn asked_by_pcp(bytes: &[u8]) -> Asked {
    assert_eq!((bytes.len(), bytes[0], bytes[1]), (60, 2, 1), "a MAP request of PCP");
    assert_eq!(
        bytes[8..24],
        Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets(),
        "our address as the router sees it"
    );
    Asked {
        nonce: bytes[24..36].try_into().unwrap(),
        tcp: bytes[36] == 6,
        ours: two(bytes, 40),
        best: two(bytes, 42),
        lifetime_s: four(bytes, 4),
    }
}

fn pcp_answer(asked: &Asked, port: u16, lifetime_s: u32) -> Vec<u8> {
    let mut answer = vec![2, 0x81, 0, 0];
    answer.extend(lifetime_s.to_be_bytes());
    answer.extend([0; 16]);
    answer.extend(asked.nonce);
    answer.extend([if asked.tcp { 6 } else { 17 }, 0, 0, 0]);
    answer.extend(asked.ours.to_be_bytes());
    answer.extend(port.to_be_bytes());
    answer.extend(OUTSIDE.to_ipv6_mapped().octets());
    answer
}

/// Grants what `grant` says: a port and seconds. A request to forget is always granted.
fn pcp_router(
    at: Ipv4Addr,
    mut grant: impl FnMut(&Asked) -> Option<(u16, u32)> + Send + 'static,
) -> Receiver<Asked> {
    let (tell, told) = channel();
    serve(at, PCP_PORT, move |socket, bytes, from| {
        if bytes[0] != 2 {
            // NAT-PMP is not spoken: "unsupported version".
            let _ = socket.send_to(&[0, 0x80 | bytes[1], 0, 1, 0, 0, 0, 9], from);
            return;
        }
        let asked = asked_by_pcp(bytes);
        let granted = if asked.lifetime_s == 0 { Some((0, 0)) } else { grant(&asked) };
        // First: who has the answer may end, and then all that was asked is looked at.
        let _ = tell.send(asked);
        if let Some((port, lifetime_s)) = granted {
            socket.send_to(&pcp_answer(&asked, port, lifetime_s), from).unwrap();
        }
    });
    told
}

fn reach(by: ReachedBy, port: u16, lasts_s: u64) -> Option<Reach> {
    Some(Reach { by, port, external: Some(OUTSIDE.into()), lasts: Duration::from_secs(lasts_s) })
}

#[test]
fn pcp_maps_both_carriers_renews_and_takes_back() {
    let at = router(1);
    let asked = pcp_router(at, |asked| Some((asked.best, 1)));
    let run = Run::with(at);
    // On a machine that stalls, a question is sent twice.
    let mut last = None;
    let mut next = || loop {
        let asked = asked.recv_timeout(LONG).unwrap();
        if last.replace(asked) != Some(asked) {
            return asked;
        }
    };
    let (tcp, udp) = (next(), next());
    assert_eq!((tcp.tcp, tcp.ours, tcp.best, tcp.lifetime_s), (true, OURS, OURS, 3600));
    assert_eq!((udp.tcp, udp.ours, udp.best, udp.lifetime_s), (false, OURS, OURS, 3600));
    assert_eq!(run.told(), reach(ReachedBy::Pcp, OURS, 1));
    // As whoever it was: by the same nonces.
    for _ in 0..2 {
        assert_eq!((next(), next()), (tcp, udp));
        assert_eq!(run.told(), reach(ReachedBy::Pcp, OURS, 1));
    }
    run.stop();
    let mut forgotten: Vec<_> = asked.try_iter().filter(|asked| asked.lifetime_s == 0).collect();
    forgotten.sort_by_key(|asked| !asked.tcp);
    forgotten.dedup();
    assert_eq!(forgotten.len(), 2);
    assert_eq!((forgotten[0].nonce, forgotten[0].tcp), (tcp.nonce, true));
    assert_eq!((forgotten[1].nonce, forgotten[1].tcp), (udp.nonce, false));
}

#[test]
fn another_port_of_the_router_is_told_and_kept() {
    let at = router(2);
    // The router moves us when it was restarted, say.
    let mut renewals = 0;
    let asked = pcp_router(at, move |asked| {
        renewals += u16::from(asked.tcp);
        Some((7000 + u16::from(renewals > 2), 1))
    });
    let run = Run::with(at);
    assert_eq!(run.told(), reach(ReachedBy::Pcp, 7000, 1));
    assert_eq!(run.told(), reach(ReachedBy::Pcp, 7000, 1));
    assert_eq!(run.told(), reach(ReachedBy::Pcp, 7001, 1));
    run.stop();
    let mut asked: Vec<_> = asked.try_iter().filter(|asked| asked.lifetime_s > 0).collect();
    asked.dedup();
    let best: Vec<_> = asked.iter().map(|asked| asked.best).collect();
    assert_eq!(best[..4], [OURS, 7000, 7000, 7000], "UDP is to have TCP's port, and both are to stay");
}

#[test]
fn nat_pmp_serves_where_pcp_is_not_spoken() {
    let at = router(3);
    let (tell, told) = channel();
    serve(at, PCP_PORT, move |socket, bytes, from| {
        let mut answer = vec![0, 0x80 | bytes[1], 0, 0, 0, 0, 0, 9];
        match (bytes[0], bytes[1]) {
            (2, _) => answer[3] = 1,
            (0, 0) => answer.extend(OUTSIDE.octets()),
            (0, carrier @ (1 | 2)) => {
                let lifetime_s = four(bytes, 8);
                tell.send((carrier, two(bytes, 4), two(bytes, 6), lifetime_s)).unwrap();
                answer.extend(&bytes[4..6]);
                // Of another port than asked for.
                answer.extend(if lifetime_s == 0 { 0 } else { 7000_u16 }.to_be_bytes());
                answer.extend(lifetime_s.min(1).to_be_bytes());
            }
            other => panic!("{other:?}"),
        }
        socket.send_to(&answer, from).unwrap();
    });
    let run = Run::with(at);
    assert_eq!(run.told(), reach(ReachedBy::NatPmp, 7000, 1));
    assert_eq!(run.told(), reach(ReachedBy::NatPmp, 7000, 1));
    run.stop();
    let mut asked: Vec<_> = told.try_iter().collect();
    asked.dedup();
    assert_eq!(
        asked[..4],
        [(2, OURS, OURS, 3600), (1, OURS, 7000, 3600), (2, OURS, 7000, 3600), (1, OURS, 7000, 3600)]
    );
    asked.retain(|(.., lifetime_s)| *lifetime_s == 0);
    asked.sort_unstable();
    assert_eq!(asked, [(1, OURS, 0, 0), (2, OURS, 0, 0)]);
}

#[test]
fn forged_answers_change_nothing() {
    let at = router(4);
    let forger = UdpSocket::bind((Ipv4Addr::new(127, 77, 4, 2), PCP_PORT)).unwrap();
    let mut questions = 0;
    serve(at, PCP_PORT, move |socket, bytes, from| {
        let mut asked = asked_by_pcp(bytes);
        // From elsewhere, before the router's own.
        forger.send_to(&pcp_answer(&asked, 6666, 3600), from).unwrap();
        questions += 1;
        if questions == 1 {
            // From the router's address, by somebody who did not see the question.
            asked.nonce[0] ^= 1;
            let _ = socket.send_to(&pcp_answer(&asked, 6667, 3600), from);
            return;
        }
        if questions == 2 {
            // Cut off, and of another protocol.
            let _ = socket.send_to(&pcp_answer(&asked, 6668, 3600)[..40], from);
            return;
        }
        socket.send_to(&pcp_answer(&asked, 7000, 3600), from).unwrap();
    });
    let run = Run::with(at);
    assert_eq!(run.told(), reach(ReachedBy::Pcp, 7000, 3600));
    run.stop();
}

#[test]
fn a_mapping_that_is_not_renewed_is_over_and_another_is_sought() {
    let at = router(5);
    let mut questions = 0;
    let asked = pcp_router(at, move |_| {
        questions += 1;
        // Two are granted; then the router is busy for some questions.
        if (3..12).contains(&questions) { Some((0, 0)) } else { Some((7000, 1)) }
    });
    let run = Run::without_device(at);
    assert_eq!(run.told(), reach(ReachedBy::Pcp, 7000, 1));
    let mut told = run.told();
    while told == reach(ReachedBy::Pcp, 7000, 1) {
        told = run.told();
    }
    assert_eq!(told, None, "once");
    assert_eq!(run.told(), reach(ReachedBy::Pcp, 7000, 1));
    run.stop();
    drop(asked);
}
