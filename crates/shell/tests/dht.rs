//! One node with one question against nodes that stay, over real sockets of this machine.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use piecemeal_discovery::dht::{
    Announce, Binding, Dht, DhtOut, Item, News, PeerSearch, SecretKey, Settings, binding, mutable_target,
};
use piecemeal_discovery::tracker::Family;
use piecemeal_metainfo::InfoHash;
use piecemeal_shell::clock::Clock;
use piecemeal_shell::dht::DhtNode;
use piecemeal_shell::net::{Dialer, Policy};
use piecemeal_wire::krpc::{NodeId, code};

/// Longer than any lookup among those that are there takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A node that answers until it is dropped.
struct Resident {
    addr: SocketAddr,
    id: NodeId,
    stop: Arc<AtomicBool>,
    /// Told something when it knows two others.
    at_home: Receiver<()>,
    thread: Option<thread::JoinHandle<Dht>>,
}

impl Resident {
    fn start(family: Family, seed: u8, knows: &[SocketAddr]) -> Option<Resident> {
        let any = if family == Family::V4 { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let (addr, clock, stop) =
            (socket.local_addr().unwrap(), Clock::start(), Arc::new(AtomicBool::new(false)));
        let mut dht = Dht::new(clock.now(), Settings::new(family), [seed; 32]);
        knows.iter().for_each(|addr| dht.add_node(*addr));
        let (id, stopped) = (dht.id(), stop.clone());
        let (tell, at_home) = channel();
        let run = move || {
            let (mut out, mut buffer) = (DhtOut::default(), [0; 2048]);
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    dht.on_packet(clock.now(), from, &buffer[..len], None, &mut out);
                }
                dht.heartbeat(clock.now(), &mut out);
                if dht.facts(clock.now()).nodes >= 2 {
                    let _ = tell.send(());
                }
                for (to, bytes) in out.datagrams.drain(..) {
                    let _ = socket.send_to(&bytes, to);
                }
            }
            dht
        };
        Some(Resident { addr, id, stop, at_home, thread: Some(thread::spawn(run)) })
    }

    fn end(mut self) -> Dht {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Three that have met, through the first.
fn network(family: Family) -> Option<Vec<Resident>> {
    let first = Resident::start(family, 1, &[])?;
    let known = [first.addr];
    let mut all = vec![first];
    all.extend((2..4).filter_map(|seed| Resident::start(family, seed, &known)));
    all.iter().for_each(|one| one.at_home.recv_timeout(LIMIT).expect("they meet"));
    Some(all)
}

fn asker(family: Family, knows: &Resident) -> DhtNode {
    let mut node = DhtNode::open(&Dialer::new(Policy::default()), family).unwrap();
    node.know(&[knows.addr]);
    node
}

#[test]
fn a_node_is_found_and_says_who_it_is() {
    for family in [Family::V4, Family::V6] {
        // A machine without IPv6 has one test less.
        let Some(all) = network(family) else { continue };
        let mut stranger = DhtNode::open(&Dialer::new(Policy::default()), family).unwrap();
        let mut pong = None;
        let begin = |dht: &mut Dht, now, out: &mut DhtOut| dht.ping(now, all[0].addr, out);
        let ended = stranger.run(
            LIMIT,
            begin,
            &mut |news| {
                pong = Some(news);
                false
            },
            &|| false,
        );
        let ended = ended.unwrap();
        assert_eq!((ended.complete, ended.summary.answered), (true, 1));
        let Some(News::Pong { id, version, sees_us_at, .. }) = pong else { panic!("{pong:?}") };
        assert_eq!((id, version.as_deref()), (all[0].id, Some(&b"PM\x00\x01"[..])));
        assert_eq!(sees_us_at.unwrap().ip(), all[0].addr.ip());
        assert_eq!(binding(id, all[0].addr.ip()), Binding::Local);

        let begin = |dht: &mut Dht, now, out: &mut DhtOut| dht.find_node(now, NodeId([9; 20]), out);
        let mut node = asker(family, &all[0]);
        let found = node.run(LIMIT, begin, &mut |_| false, &|| false).unwrap().summary.nodes;
        let mut ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
        assert!(ids.is_sorted_by_key(|id| id.distance(NodeId([9; 20]))));
        let mut expected: Vec<_> = all.iter().map(|node| node.id).collect();
        ids.sort_unstable();
        expected.sort_unstable();
        assert_eq!(ids, expected);
        for node in all {
            let dht = node.end();
            let knows_us = dht.save().into_iter().filter(|(id, _)| !expected.contains(id)).count();
            assert_eq!(knows_us, 0, "who asks once is not listed");
        }
    }
}

#[test]
fn an_announce_is_found_by_others() {
    let all = network(Family::V4).unwrap();
    let info_hash = InfoHash([5; 20]);
    let search = |announce| PeerSearch { info_hash, announce, scrape: true, no_seed: false };
    let announce = Announce { port: 7777, implied_port: false, seed: false };
    let look = |search: PeerSearch| {
        let mut found = Vec::new();
        let mut hear = |news| {
            if let News::PeersFound { peers, .. } = news {
                found.extend(peers);
            }
            false
        };
        let begin = |dht: &mut Dht, now, out: &mut DhtOut| dht.get_peers(now, search, out);
        let ended = asker(Family::V4, &all[1]).run(LIMIT, begin, &mut hear, &|| false).unwrap();
        (found, ended.summary)
    };
    let (found, summary) = look(search(Some(announce)));
    assert_eq!((found.len(), summary.stored), (0, 3));
    let (found, summary) = look(search(None));
    assert_eq!(found, ["127.0.0.1:7777".parse().unwrap()]);
    let (seeds, leeches) = summary.scrape.unwrap();
    assert!(seeds < 0.5 && (0.5..1.5).contains(&leeches), "{summary:?}");
    // Who is asked for samples has this one.
    let mut samples = Vec::new();
    let begin = |dht: &mut Dht, now, out: &mut DhtOut| {
        dht.sample_infohashes(now, NodeId([0; 20]), Some(all[2].addr), out)
    };
    let mut hear = |news| {
        if let News::Samples { info_hashes, .. } = news {
            samples.extend(info_hashes);
        }
        false
    };
    DhtNode::open(&Dialer::new(Policy::default()), Family::V4)
        .unwrap()
        .run(LIMIT, begin, &mut hear, &|| false)
        .unwrap();
    assert_eq!(samples, [info_hash]);
}

#[test]
fn items_are_stored_found_and_replaced() {
    let all = network(Family::V4).unwrap();
    let put = |item: Item, cas| {
        let begin = |dht: &mut Dht, now, out: &mut DhtOut| dht.put(now, item.clone(), cas, out);
        asker(Family::V4, &all[0]).run(LIMIT, begin, &mut |_| false, &|| false).unwrap().summary
    };
    let get = |target, salt: &[u8]| {
        let mut found = None;
        let mut hear = |news| {
            if let News::Value { item, .. } = news {
                found = Some(item);
            }
            false
        };
        let begin = |dht: &mut Dht, now, out: &mut DhtOut| dht.get(now, target, salt, out);
        asker(Family::V4, &all[2]).run(LIMIT, begin, &mut hear, &|| false).unwrap();
        found
    };
    let item = Item::immutable(b"5:hello".to_vec()).unwrap();
    assert_eq!(put(item.clone(), None).stored, 3);
    assert_eq!(get(item.target(), b""), Some(item));
    let secret = SecretKey::from_seed(&[8; 32]);
    let signed = |seq, value: &[u8]| Item::sign(&secret, b"s".to_vec(), seq, value.to_vec()).unwrap();
    assert_eq!(put(signed(3, b"1:a"), None).stored, 3);
    let refused = put(signed(2, b"1:b"), None);
    assert_eq!((refused.stored, refused.refused), (0, Some(code::SEQ)));
    assert_eq!(put(signed(4, b"1:c"), Some(2)).refused, Some(code::CAS));
    assert_eq!(put(signed(4, b"1:c"), Some(3)).stored, 3);
    assert_eq!(get(mutable_target(&secret.public(), b"s"), b"s"), Some(signed(4, b"1:c")));
    assert_eq!(get(mutable_target(&secret.public(), b"t"), b"t"), None);
}

#[test]
fn silence_ends_and_so_does_a_wish_to_stop() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap();
    let mut node = DhtNode::open(&Dialer::new(Policy::default()), Family::V4).unwrap();
    let begin = |dht: &mut Dht, now, out: &mut DhtOut| dht.ping(now, addr, out);
    let ended = node.run(Duration::from_millis(60), begin, &mut |_| false, &|| false).unwrap();
    assert_eq!((ended.complete, ended.summary.asked, ended.summary.answered), (false, 1, 0));
    let ended = node.run(LIMIT, begin, &mut |_| false, &|| true).unwrap();
    assert!(!ended.complete);
    // A search that knows nobody is over at once.
    let find = |dht: &mut Dht, now, out: &mut DhtOut| dht.find_node(now, NodeId([1; 20]), out);
    let ended = DhtNode::open(&Dialer::new(Policy::default()), Family::V4)
        .unwrap()
        .run(LIMIT, find, &mut |_| false, &|| false)
        .unwrap();
    assert_eq!((ended.complete, ended.summary.asked), (true, 0));
}
