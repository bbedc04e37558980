//! A Seeker among scripted peers: honest ones, liars of several kinds, and those who will not help.

use std::net::IpAddr;

use piecemeal_metainfo::{InfoHash, InfoHashV2, PeerId};
use piecemeal_package::BlockPool;
use piecemeal_wire::extension::{Extension, ExtensionHandshake, ExtensionIds, HANDSHAKE_ID};
use piecemeal_wire::handshake::Reserved;
use piecemeal_wire::message::{Head, Limits, Message, decode_head};
use piecemeal_wire::metadata::{MetadataMessage, metadata_piece_len, metadata_pieces};
use piecemeal_wire::pex::{PexFlags, PexMessage};
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::cx::{Carrier, Lease, Note, Out, Rng};
use crate::rate::Trunk;

const T: TorrentId = TorrentId(3);
/// Between two turns of the world, and on each way between two hosts.
const STEP: Duration = Duration::from_millis(100);

/// How a peer behaves.
#[derive(Clone, Debug)]
enum Kind {
    /// Gives what it has.
    Gives(Vec<u8>),
    /// Says it has so many bytes, and sends zeros.
    Zeros(u32),
    /// Says it has so many bytes, and sends as if there were others.
    Two(u32, u32),
    /// Gives one part and falls silent.
    Stalls(Vec<u8>),
    /// Says it has some, and refuses each part.
    Refuses(u32),
    /// Says it has so many, by bencode of its own.
    Boasts(&'static [u8]),
    /// Speaks no extension protocol.
    Plain,
    /// Has nothing but knows somebody.
    Gossips(SocketAddr),
}

struct Peer {
    kind: Kind,
    conn: Option<ConnId>,
    /// What it heard and did not read yet.
    heard: Vec<u8>,
    /// What it says, to arrive at the next turn.
    says: Vec<u8>,
    asked: usize,
    closed: Option<Goodbye>,
}

struct World {
    now: Time,
    rng: Rng,
    pool: BlockPool,
    lease: Lease,
    out: Out,
    seeker: Seeker,
    peers: BTreeMap<SocketAddr, Peer>,
    news: Vec<News>,
    most_bytes: usize,
    sent_bytes: usize,
    next_conn: u64,
}

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 6881))
}

/// So many bytes that differ from place to place.
fn dictionary(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn v1(bytes: &[u8]) -> InfoHashes {
    InfoHashes { v1: Some(InfoHash(sha1(bytes))), v2: None }
}

impl World {
    /// Seeks what has these hashes among these; the Seeker is told of the first `told` of them.
    fn new(hashes: InfoHashes, kinds: Vec<Kind>, told: usize) -> World {
        let peers: BTreeMap<_, _> = (1..).map(addr).zip(kinds.into_iter().map(Peer::new)).collect();
        let (mut rng, mut pool, mut out) = (Rng::from_seed([1; 32]), BlockPool::new(1), Out::default());
        let mut lease = Lease {
            down: Trunk::unlimited(),
            up: Trunk::unlimited(),
            upload_bufs: 0,
            outside: Default::default(),
            gate: Default::default(),
        };
        let seeking = Seeking {
            torrent: T,
            hashes,
            trackers: Vec::new(),
            peers: peers.keys().take(told).copied().collect(),
            leave: false,
        };
        let mut cx = Cx { now: Time::ZERO, rng: &mut rng, pool: &mut pool, lease: &mut lease, out: &mut out };
        let seeker = Seeker::new(&mut cx, Arc::new(Settings::default()), seeking);
        World {
            now: Time::ZERO,
            rng,
            pool,
            lease,
            out,
            seeker,
            peers,
            news: Vec::new(),
            most_bytes: 0,
            sent_bytes: 0,
            next_conn: 0,
        }
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Seeker, &mut Cx<'_>) -> R) -> R {
        let World { now, rng, pool, lease, out, seeker, .. } = self;
        f(seeker, &mut Cx { now: *now, rng, pool, lease, out })
    }

    /// Seconds until the dictionary was there, and what it is.
    fn find(&mut self, limit: u64) -> Option<(u64, Vec<u8>)> {
        let until = self.now + Duration::from_secs(limit);
        while self.now < until {
            self.turn();
            let found = self.news.iter().find_map(|news| match news {
                News::Metadata { info, .. } => Some(info.to_vec()),
                _ => None,
            });
            if let Some(info) = found {
                return Some((self.now.since(Time::ZERO).as_secs(), info));
            }
        }
        None
    }

    fn turn(&mut self) {
        self.now = self.now + STEP;
        for at in self.peers.keys().copied().collect::<Vec<_>>() {
            let peer = self.peers.get_mut(&at).expect("one of the keys");
            let says = std::mem::take(&mut peer.says);
            if let Some(conn) = peer.conn.filter(|_| !says.is_empty()) {
                self.sent_bytes += says.len();
                let ate = self.with(|seeker, cx| seeker.on_bytes(cx, conn, &says));
                assert_eq!((ate.bytes, ate.thirsty), (says.len(), false));
                self.most_bytes = self.most_bytes.max(self.seeker.assemblies.bytes());
            }
        }
        if self.seeker.next_heartbeat() <= self.now {
            self.with(|seeker, cx| seeker.heartbeat(cx));
            assert!(self.seeker.next_heartbeat() > self.now, "a beat plans the next one for later");
        }
        self.follow();
        self.deliver();
        self.news.append(&mut self.out.news);
    }

    /// Does what was asked of the network.
    fn follow(&mut self) {
        for note in std::mem::take(&mut self.out.notes) {
            if let Note::Dial { to, .. } = note {
                self.connect(to, true);
            }
        }
        for wish in std::mem::take(&mut self.out.net) {
            if let Net::Close(conn, why) = wish {
                let peer = self.peers.values_mut().find(|peer| peer.conn == Some(conn));
                let peer = peer.expect("only what is connected is closed");
                (peer.conn, peer.closed) = (None, Some(why));
                peer.heard.clear();
                peer.says.clear();
            }
        }
        assert!(self.out.disk.is_empty());
    }

    fn connect(&mut self, to: SocketAddr, outgoing: bool) {
        let Some(peer) = self.peers.get_mut(&to).filter(|peer| peer.conn.is_none()) else {
            return self.with(|seeker, cx| seeker.on_dial_failed(cx, to, &Goodbye::Failed("nobody".into())));
        };
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        peer.conn = Some(conn);
        let plain = matches!(peer.kind, Kind::Plain);
        peer.says = peer.hello();
        let [.., n] = to.ip().to_canonical().to_string().bytes().collect::<Vec<_>>()[..] else { return };
        let mut id = *b"-XX0001-pppppppppp__";
        (id[18], id[19]) = (n, to.port().to_be_bytes()[1]);
        if let IpAddr::V4(ip) = to.ip() {
            id[17] = ip.octets()[3];
        }
        let handed = Handed {
            conn,
            torrent: T,
            addr: to,
            peer_id: PeerId(id),
            reserved: if plain { Reserved::NONE } else { Reserved::NONE.with_extension() },
            outgoing,
            carrier: Carrier::Tcp,
            ciphers: None,
            leftover: Vec::new(),
        };
        if self.with(|seeker, cx| seeker.on_handed(cx, &handed)).is_err() {
            self.peers.get_mut(&to).expect("it was there").conn = None;
        }
    }

    /// Carries what the Seeker says to the peers, and lets them answer.
    fn deliver(&mut self) {
        for at in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some(conn) = self.peers[&at].conn else { continue };
            while let Some(bytes) = self.sealed(conn) {
                self.with(|seeker, cx| seeker.on_wrote(cx, conn, bytes.len()));
                self.peers.get_mut(&at).expect("one of the keys").heard.extend(bytes);
            }
            self.peers.get_mut(&at).expect("one of the keys").answer();
        }
    }

    fn sealed(&self, conn: ConnId) -> Option<Vec<u8>> {
        self.seeker.with_sealed(conn, |slices| {
            let mut all = Vec::new();
            for slice in slices {
                let Sending::Bytes(bytes) = slice else { panic!("a Seeker has no files") };
                all.extend_from_slice(bytes);
            }
            all
        })
    }

    fn banned(&self) -> Vec<SocketAddr> {
        let mut banned: Vec<_> = self
            .news
            .iter()
            .filter_map(|news| match news {
                News::Banned(_, addr, why) => {
                    assert_eq!(*why, Goodbye::Poisoned);
                    Some(*addr)
                }
                _ => None,
            })
            .collect();
        banned.sort();
        banned
    }
}

impl Peer {
    fn new(kind: Kind) -> Peer {
        Peer { kind, conn: None, heard: Vec::new(), says: Vec::new(), asked: 0, closed: None }
    }

    fn hello(&self) -> Vec<u8> {
        let ids = ExtensionIds::own([Extension::Metadata, Extension::Pex]);
        let size = match &self.kind {
            Kind::Gives(bytes) | Kind::Stalls(bytes) => bytes.len() as u32,
            Kind::Zeros(size) | Kind::Two(size, _) | Kind::Refuses(size) => *size,
            Kind::Boasts(payload) => return extended(HANDSHAKE_ID, payload),
            Kind::Plain => return Vec::new(),
            Kind::Gossips(_) => 0,
        };
        let hello = ExtensionHandshake {
            ids,
            metadata_size: Some(size).filter(|size| *size > 0),
            ..ExtensionHandshake::default()
        };
        let mut says = extended(HANDSHAKE_ID, &hello.encode());
        if let Kind::Gossips(addr) = self.kind {
            let message = PexMessage { added: vec![(addr, PexFlags(0))], dropped: vec![] };
            let own = ExtensionIds::own([Extension::Pex]).get(Extension::Pex).expect("it has a number");
            says.extend(extended(own, &message.encode()));
        }
        says
    }

    fn answer(&mut self) {
        let heard = std::mem::take(&mut self.heard);
        let mut rest = &heard[..];
        loop {
            match decode_head(rest, &Limits::default()).expect("we speak the protocol") {
                Head::NeedMore => break,
                Head::KeepAlive => rest = &rest[4..],
                Head::Piece { .. } => panic!("a Seeker has no pieces"),
                Head::Message { message, consumed } => {
                    if let Message::Extended { id, payload } = message {
                        self.heard_extended(id, payload);
                    }
                    rest = &rest[consumed..];
                }
            }
        }
        self.heard = rest.to_vec();
    }

    fn heard_extended(&mut self, id: u8, payload: &[u8]) {
        if Extension::from_own_id(id) != Some(Extension::Metadata) {
            return;
        }
        let Ok(MetadataMessage::Request { piece }) = MetadataMessage::decode(payload) else {
            panic!("a Seeker only asks: {payload:?}")
        };
        self.asked += 1;
        let begin = piece as usize * (16 << 10);
        let part = |bytes: &[u8]| bytes.iter().skip(begin).take(16 << 10).copied().collect::<Vec<_>>();
        let (size, data) = match &self.kind {
            Kind::Gives(bytes) => (bytes.len() as u32, part(bytes)),
            Kind::Stalls(bytes) if self.asked == 1 => (bytes.len() as u32, part(bytes)),
            Kind::Zeros(size) => {
                (*size, vec![0; metadata_piece_len(piece, *size).expect("within its size") as usize])
            }
            Kind::Two(_, size) => match metadata_piece_len(piece, *size) {
                Some(len) => (*size, vec![0; len as usize]),
                None => return,
            },
            Kind::Refuses(_) => return self.say(&MetadataMessage::Reject { piece }),
            _ => return,
        };
        self.say(&MetadataMessage::Data { piece, total_size: size, data: &data });
    }

    fn say(&mut self, message: &MetadataMessage<'_>) {
        let own = ExtensionIds::own([Extension::Metadata]).get(Extension::Metadata).expect("it has a number");
        let mut payload = Vec::new();
        message.encode(&mut payload);
        self.says.extend(extended(own, &payload));
    }
}

fn extended(id: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Message::Extended { id, payload }.encode(&mut out);
    out
}

#[test]
fn ten_liars_and_one_honest_peer() {
    // Of one part and of many: a liar of one part is found out at once, liars of many first spoil what they share.
    for len in [5_000, 16 << 10, 100_000, 1 << 20] {
        let honest = dictionary(len);
        let mut kinds = vec![Kind::Zeros(len as u32); 10];
        kinds.push(Kind::Gives(honest.clone()));
        let mut world = World::new(v1(&honest), kinds, 11);
        let (took, found) = world.find(60).expect("one of them is honest");
        assert_eq!(found, honest);
        assert!(took < 30, "{len} bytes: {took} s");
        assert!(!world.banned().contains(&addr(11)), "an honest peer is not banned");
        assert!(world.most_bytes <= world.sent_bytes);
    }
}

#[test]
fn liars_are_found_out_though_nobody_is_honest() {
    for len in [10_u32, 200_000] {
        let mut world = World::new(v1(b"something else"), vec![Kind::Zeros(len); 10], 10);
        assert_eq!(world.find(120), None);
        assert_eq!(world.banned(), (1..=10).map(addr).collect::<Vec<_>>(), "{len} bytes");
        assert!(world.peers.values().all(|peer| peer.closed == Some(Goodbye::Poisoned)));
        assert_eq!(world.seeker.assemblies.bytes(), 0);
    }
}

#[test]
fn several_give_parts_at_once() {
    let honest = dictionary(20 * (16 << 10));
    let mut world = World::new(v1(&honest), vec![Kind::Gives(honest.clone()); 4], 4);
    assert_eq!(world.find(10).expect("all are honest").1, honest);
    let asked: Vec<_> = world.peers.values().map(|peer| peer.asked).collect();
    assert!(asked.iter().all(|asked| *asked >= 4), "{asked:?}");
    assert!(asked.iter().sum::<usize>() <= 20 + 3, "only the last parts are asked for twice: {asked:?}");
}

#[test]
fn sizes_that_lie_keep_nobody_out() {
    let honest = dictionary(40_000);
    let most = 16 << 20;
    let mut kinds: Vec<_> = (0..20).map(|n| Kind::Zeros(most - n * 20_000)).collect();
    kinds.push(Kind::Gives(honest.clone()));
    let mut world = World::new(v1(&honest), kinds, 21);
    assert_eq!(world.find(180).expect("one of them is honest").1, honest);
    assert!(world.most_bytes <= world.sent_bytes);
}

#[test]
fn who_says_one_size_and_sends_another_is_passed_over() {
    let honest = dictionary(40_000);
    let kinds = vec![Kind::Two(40_000, 16 << 20), Kind::Two(16 << 20, 40_000), Kind::Gives(honest.clone())];
    let mut world = World::new(v1(&honest), kinds, 3);
    assert_eq!(world.find(30).expect("one of them is honest").1, honest);
}

#[test]
fn boasts_beyond_all_sense_cost_nothing() {
    let payloads: [&[u8]; 5] = [
        b"d1:md11:ut_metadatai1ee13:metadata_sizei4611686018427387904ee",
        b"d1:md11:ut_metadatai1ee13:metadata_sizei16777217ee",
        b"d1:md11:ut_metadatai1ee13:metadata_sizei-1ee",
        b"d1:md11:ut_metadatai1ee13:metadata_sizei0ee",
        b"d1:md11:ut_metadatai1ee13:metadata_size3:100e",
    ];
    let honest = dictionary(100);
    let mut kinds: Vec<_> = payloads.into_iter().map(Kind::Boasts).collect();
    kinds.push(Kind::Gives(honest.clone()));
    let mut world = World::new(v1(&honest), kinds, 6);
    assert_eq!(world.find(10).expect("one of them is honest").1, honest);
    assert!((1..=5).all(|n| world.peers[&addr(n)].asked == 0), "they are not asked");
    assert_eq!(world.most_bytes, 0, "one part is the whole and is not kept");
}

#[test]
fn who_will_not_help_makes_room_in_time() {
    let honest = dictionary(60_000);
    let kinds = vec![
        Kind::Refuses(60_000),
        Kind::Stalls(honest.clone()),
        Kind::Plain,
        Kind::Boasts(b"d1:mdee"),
        Kind::Gossips(addr(6)),
    ];
    let mut world = World::new(v1(&honest), kinds, 5);
    assert_eq!(world.find(29), None);
    assert_eq!([1, 2].map(|n| world.peers[&addr(n)].asked), [1, 2], "nobody is pestered");
    assert_eq!(world.find(4), None);
    let gone = |n: u8| world.peers[&addr(n)].closed.clone();
    assert_eq!([1, 2, 3, 4].map(gone), [const { Some(Goodbye::Useless) }; 4]);
    assert_eq!(world.banned(), []);
    // Somebody who can help was named by a peer, and comes up only now.
    world.peers.insert(addr(6), Peer::new(Kind::Gives(honest.clone())));
    assert_eq!(world.find(100).expect("one of them is honest").1, honest);
}

#[test]
fn callers_help_as_well_and_are_handed_on_where_they_listen() {
    let honest = dictionary(10);
    let mut world = World::new(v1(&honest), vec![Kind::Gives(honest.clone())], 0);
    world.turn();
    world.connect(addr(1), false);
    assert_eq!(world.find(10).expect("it is honest").1, honest);
    let known = world.news.iter().find_map(|news| match news {
        News::Metadata { known, .. } => Some(known.clone()),
        _ => None,
    });
    assert_eq!(known, Some(vec![]), "a caller's own port is nobody's address");
    assert!(world.seeker.is_over() && world.seeker.next_heartbeat() == Time::NEVER);
    assert_eq!(world.peers[&addr(1)].closed, Some(Goodbye::Leaving));
}

#[test]
fn both_hashes_count() {
    let honest = dictionary(100);
    let right = InfoHashes { v1: v1(&honest).v1, v2: Some(InfoHashV2(sha256(&honest))) };
    let wrong = InfoHashes { v2: Some(InfoHashV2([0; 32])), ..right };
    for (hashes, found) in [(right, true), (wrong, false)] {
        let mut world = World::new(hashes, vec![Kind::Gives(honest.clone())], 1);
        assert_eq!(world.find(20).is_some(), found);
        let known = world.news.iter().find_map(|news| match news {
            News::Metadata { known, .. } => Some(known.clone()),
            _ => None,
        });
        assert_eq!(known, found.then(|| vec![addr(1)]));
    }
}

#[test]
fn how_the_search_goes_is_told_when_it_changes() {
    let kinds = vec![Kind::Refuses(100), Kind::Refuses(100)];
    let mut world = World::new(v1(b"x"), kinds, 2);
    assert_eq!(world.find(15), None);
    let told: Vec<_> = world
        .news
        .iter()
        .filter_map(|news| match news {
            News::Seeking { torrent, peers, known } => Some((torrent.0, *peers, *known)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(3, 0, 2), (3, 2, 2)]);
    world.with(|seeker, cx| seeker.leave(cx));
    assert!(world.seeker.is_over());
    world.turn();
    assert!(world.peers.values().all(|peer| peer.closed == Some(Goodbye::Leaving)));
}

#[test]
fn a_dictionary_of_the_largest_size_comes() {
    let honest = dictionary(16 << 20);
    assert_eq!(metadata_pieces(honest.len() as u32), 1024);
    let mut world = World::new(v1(&honest), vec![Kind::Gives(honest.clone()); 8], 8);
    let (took, found) = world.find(120).expect("all are honest");
    assert!(found == honest, "another dictionary");
    assert!(took < 60, "{took} s at 100 ms a part and peer");
    assert!(world.most_bytes <= world.sent_bytes);
}
