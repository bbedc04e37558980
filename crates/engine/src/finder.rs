//! Finding and reaching the peers of one torrent: its Swarm, its Trackers, and the dials under way.
//!
//! Owns these three and how they feed each other. Whoever holds a Finder (a Controller, a Seeker) says whether it runs
//! and how many connections it has, and hears when it must be called again.

use std::net::SocketAddr;
use std::sync::Arc;

use piecemeal_discovery::filter::Gate;
use piecemeal_discovery::local::is_local;
use piecemeal_discovery::tracker::{
    AnnounceFacts, FetchFailure, FetchId, Heard, Identity, Outcome, TrackerStatus, Trackers,
};
use piecemeal_metainfo::{InfoHash, PeerId, Time, TorrentId};
use rand_core::Rng;

use crate::cx::{Cx, Goodbye, Net, News, Note, Road, Settings};
use crate::outside::TRACKERS;
use crate::peer::Hello;
use crate::swarm::{PeerSource, Refusal, Swarm, SwarmLimits, Twin, Why};

/// Dials a torrent may have under way, so that one with a thousand addresses leaves room for others.
const MOST_DIALING: usize = 32;
/// Peers known are enough: no more are asked for.
const ENOUGH_KNOWN: usize = 1000;

/// See the module.
pub(crate) struct Finder {
    torrent: TorrentId,
    settings: Arc<Settings>,
    swarm: Swarm,
    trackers: Trackers,
    /// Dials that were asked of the Server and not answered.
    dialing: usize,
    /// A dial found no place, for all torrents together have as many connections as they may.
    turned_away: bool,
    /// Peers and trackers are spoken to.
    running: bool,
    /// Nobody but its trackers and its user may name peers (BEP 27).
    private: bool,
    /// Who may be talked to.
    gate: Gate,
}

impl Finder {
    pub(crate) fn new(
        cx: &mut Cx<'_>,
        torrent: TorrentId,
        settings: Arc<Settings>,
        info_hash: InfoHash,
        tiers: &[Vec<String>],
        private: bool,
    ) -> Finder {
        let identity = Identity {
            info_hash,
            peer_id: settings.peer_id,
            key: cx.rng.next_u32(),
            port: settings.port,
            ipv4: settings.ipv4,
            ipv6: settings.ipv6,
        };
        let mut trackers = Trackers::new(tiers, identity, cx.rng);
        trackers.moved(cx.now, cx.lease.outside.port_v4);
        Finder {
            torrent,
            swarm: Swarm::new(settings.peer_id, SwarmLimits::default()),
            trackers,
            settings,
            dialing: 0,
            turned_away: false,
            running: false,
            private,
            gate: cx.lease.gate.clone(),
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Begins to announce, and takes connections. False if it did already.
    pub(crate) fn start(&mut self, cx: &mut Cx<'_>) -> bool {
        if std::mem::replace(&mut self.running, true) {
            return false;
        }
        self.trackers.start(cx.now);
        cx.out.notes.push(Note::Open { torrent: self.torrent, open: true });
        true
    }

    /// Takes no connections any more, and takes leave of its trackers. False if it did already.
    pub(crate) fn stop(&mut self, cx: &mut Cx<'_>, facts: &AnnounceFacts) -> bool {
        if !self.vanish(cx) {
            return false;
        }
        let mut fetches = Vec::new();
        self.trackers.stop(cx.now, facts, &mut fetches);
        self.fetch(cx, fetches);
        true
    }

    /// As [`Finder::stop`], without a word to the trackers. False if it did already.
    pub(crate) fn vanish(&mut self, cx: &mut Cx<'_>) -> bool {
        if !std::mem::replace(&mut self.running, false) {
            return false;
        }
        cx.out.notes.push(Note::Open { torrent: self.torrent, open: false });
        true
    }

    /// Whether the farewells are over.
    pub(crate) fn is_quiet(&self) -> bool {
        self.trackers.is_quiet()
    }

    /// Remembers addresses of those who may be talked to. Of a private torrent only its trackers and its user are believed.
    pub(crate) fn learn(
        &mut self,
        now: Time,
        addrs: impl IntoIterator<Item = SocketAddr>,
        source: PeerSource,
    ) {
        let believed = !self.private
            || matches!(
                source,
                PeerSource::Manual | PeerSource::Tracker | PeerSource::Resume | PeerSource::Incoming
            );
        if believed {
            for addr in addrs.into_iter().filter(|addr| !self.gate.blocks(addr.ip())) {
                self.swarm.learn(addr, source, now);
            }
        }
    }

    /// Dials whose time has come, while there is room beside `connected` peers.
    pub(crate) fn connect(&mut self, cx: &mut Cx<'_>, connected: usize) {
        while self.running && self.has_room(connected) {
            let Some(to) = self.swarm.next_to_dial(cx.now, cx.rng, &cx.lease.outside) else { break };
            self.dialing += 1;
            cx.out.notes.push(Note::Dial { torrent: self.torrent, to, road: Road::Any });
        }
    }

    /// Dials an address at once, by uTP: whoever is there does the same (BEP 55).
    pub(crate) fn call_through(&mut self, cx: &mut Cx<'_>, to: SocketAddr, connected: usize) {
        if self.running && self.has_room(connected) && self.swarm.dial_now(to, cx.now) {
            self.dialing += 1;
            cx.out.notes.push(Note::Dial { torrent: self.torrent, to, road: Road::Utp });
        }
    }

    /// When [`Finder::connect`] has something to do.
    pub(crate) fn next_dial(&self, connected: usize) -> Time {
        if self.running && self.has_room(connected) { self.swarm.next_due() } else { Time::NEVER }
    }

    fn has_room(&self, connected: usize) -> bool {
        self.dialing < MOST_DIALING && connected + self.dialing < self.settings.max_conns_per_torrent
    }

    /// A dial came to nothing.
    pub(crate) fn on_dial_failed(&mut self, cx: &mut Cx<'_>, to: SocketAddr, why: &Goodbye) {
        self.dialing = self.dialing.saturating_sub(1);
        self.turned_away |= matches!(why, Goodbye::Crowded);
        match why {
            Goodbye::Crowded | Goodbye::Leaving => self.swarm.dial_postponed(to, cx.now),
            Goodbye::Ourselves => {
                let ourselves = self.settings.peer_id;
                // The answer is known; asking makes the Swarm remember the address as ours.
                let _ = self.swarm.connected(to, ourselves, false, cx.now);
            }
            // The Server knows before the Shard does who may not be talked to.
            Goodbye::Banned => self.swarm.dial_refused(to),
            _ => self.swarm.dial_failed(to, cx.now),
        }
    }

    /// Whether there are connections enough.
    pub(crate) fn is_crowded(&self, connected: usize) -> bool {
        connected >= self.settings.max_conns_per_torrent
    }

    /// Whether so many hundredths of the places are taken, or dials found none of those that all torrents have together.
    pub(crate) fn is_full(&self, connected: usize, percent: usize) -> bool {
        self.running && (self.turned_away || connected * 100 >= self.settings.max_conns_per_torrent * percent)
    }

    /// A place may be free again.
    pub(crate) fn hope(&mut self) {
        self.turned_away = false;
    }

    /// How many could be dialed now; no more than `most` are counted.
    pub(crate) fn due(&self, now: Time, most: usize) -> usize {
        self.swarm.due(now, most)
    }

    /// Whether the user named the peer connected at `addr`.
    pub(crate) fn is_manual(&self, addr: SocketAddr) -> bool {
        self.swarm.is_manual(addr)
    }

    /// Whether a newcomer is connected already, and which of the two connections stays. If that is the new one, the
    /// other must end before it is admitted, and [`Finder::replaced`] be told after.
    pub(crate) fn twin(&self, now: Time, addr: SocketAddr, peer_id: PeerId, outgoing: bool) -> Twin {
        if self.running { self.swarm.twin(addr, peer_id, !outgoing, now) } else { Twin::None }
    }

    /// The connection at `addr` took the place of the one at `before`.
    pub(crate) fn replaced(&mut self, addr: SocketAddr, before: SocketAddr) {
        self.swarm.replaced(addr, before);
    }

    /// A peer whose handshake is done: may it stay beside `connected` others?
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit(
        &mut self,
        now: Time,
        addr: SocketAddr,
        peer_id: PeerId,
        outgoing: bool,
        connected: usize,
    ) -> Result<(), Goodbye> {
        self.dialing = self.dialing.saturating_sub(usize::from(outgoing));
        let crowded = self.is_crowded(connected);
        if !self.running || crowded {
            self.swarm.dial_postponed(addr, now);
            return Err(if crowded { Goodbye::Crowded } else { Goodbye::Unknown });
        }
        let may_stay = self.swarm.connected(addr, peer_id, !outgoing, now);
        may_stay.map_err(|refusal| match refusal {
            Refusal::Duplicate => Goodbye::Duplicate,
            Refusal::Ourselves => Goodbye::Ourselves,
            Refusal::Banned => Goodbye::Banned,
            Refusal::Crowded => Goodbye::Crowded,
        })
    }

    /// A connection that was admitted has ended; `spoke` is false if its peer never said or gave anything.
    pub(crate) fn parted(&mut self, now: Time, addr: SocketAddr, why: &Goodbye, spoke: bool) {
        let why = match why {
            Goodbye::Broke(_) | Goodbye::Poisoned | Goodbye::Banned | Goodbye::Silent => Why::Fault,
            Goodbye::Closed | Goodbye::Failed(_) if !spoke => Why::Fault,
            // Who was sent away for others should not be the next to be dialed.
            Goodbye::Useless | Goodbye::Crowded => Why::Idle,
            _ => Why::Normal,
        };
        self.swarm.disconnected(addr, now, why);
    }

    /// Announces what is due. `facts` without how many peers are wanted; `want` is asked for while few are known.
    pub(crate) fn announce(&mut self, cx: &mut Cx<'_>, facts: AnnounceFacts) {
        let want = if self.swarm.counts().known >= ENOUGH_KNOWN { 0 } else { facts.want };
        let mut fetches = Vec::new();
        self.trackers.heartbeat(cx.now, cx.rng, &AnnounceFacts { want, ..facts }, &mut fetches);
        self.fetch(cx, fetches);
    }

    /// A tracker answered, or did not.
    pub(crate) fn on_fetched(
        &mut self,
        cx: &mut Cx<'_>,
        fetch: FetchId,
        result: Result<&[u8], FetchFailure>,
    ) {
        let Some(heard) = self.trackers.on_fetched(cx.now, cx.rng, fetch, result) else { return };
        self.heard(cx, heard);
    }

    fn heard(&mut self, cx: &mut Cx<'_>, heard: Heard) {
        if let Outcome::Answered { peers, external_ip, .. } = &heard.outcome {
            self.learn(cx.now, peers.iter().copied(), PeerSource::Tracker);
            cx.out.notes.extend(external_ip.map(|ip| Note::SeenAs { ip, by: TRACKERS }));
        }
        cx.out.news.push(News::Tracker(self.torrent, heard));
    }

    fn fetch(&self, cx: &mut Cx<'_>, fetches: Vec<piecemeal_discovery::tracker::Fetch>) {
        cx.out.net.extend(fetches.into_iter().map(|fetch| Net::Fetch(self.torrent, fetch)));
    }

    /// When [`Finder::announce`] has something to do.
    pub(crate) fn next_announce(&self) -> Time {
        if self.running { self.trackers.next_due() } else { Time::NEVER }
    }

    /// The user wants an announce now.
    pub(crate) fn announce_now(&mut self, now: Time) {
        self.trackers.announce_now(now);
    }

    /// Somebody looks at a torrent that may not be running: asks for counts that are missing.
    pub(crate) fn look(&mut self, cx: &mut Cx<'_>) {
        let mut fetches = Vec::new();
        self.trackers.look(cx.now, &mut fetches);
        self.fetch(cx, fetches);
    }

    /// Peers reach us elsewhere now.
    pub(crate) fn moved(&mut self, cx: &mut Cx<'_>) {
        self.trackers.moved(cx.now, cx.lease.outside.port_v4);
    }

    /// The port a peer is told that it, and those it knows, reach us at: a router's is for those outside.
    pub(crate) fn port_for(&self, cx: &Cx<'_>, peer: SocketAddr) -> u16 {
        let ip = peer.ip().to_canonical();
        if ip.is_ipv6() || is_local(ip) { self.settings.port } else { cx.lease.outside.port_v4 }
    }

    /// The network was away and is back.
    pub(crate) fn reconnect(&mut self, now: Time) {
        self.swarm.reconsider(now);
        self.trackers.announce_now(now);
    }

    /// The download is complete.
    pub(crate) fn complete(&mut self, now: Time) {
        self.trackers.complete(now);
    }

    /// Whether all that is wanted is there: then seeds are not dialed.
    pub(crate) fn set_seeding(&mut self, seeding: bool) {
        self.swarm.set_seeding(seeding);
    }

    /// The peer connected at `addr` has everything, or has not after all.
    pub(crate) fn set_seed(&mut self, addr: SocketAddr, seed: bool) {
        self.swarm.set_seed(addr, seed);
    }

    /// What the peer connected at `addr` says of us and of itself.
    pub(crate) fn hello(&mut self, cx: &mut Cx<'_>, addr: SocketAddr, outgoing: bool, hello: Hello) {
        // One whom we called listens where we called it.
        if let Some(port) = hello.port.filter(|_| !outgoing) {
            self.swarm.listens_at(addr, port, cx.now);
        }
        cx.out.notes.extend(hello.your_ip.map(|ip| Note::SeenAs { ip, by: addr }));
    }

    /// Never again speak to whoever is at this address.
    pub(crate) fn ban(&mut self, who: SocketAddr) {
        self.swarm.ban(who.ip().to_canonical());
    }

    /// Who may be talked to from now on. Those who may not are to be sent away before.
    pub(crate) fn set_gate(&mut self, gate: Gate) {
        self.swarm.forget(|ip| gate.blocks(ip));
        self.gate = gate;
    }

    /// Addresses known.
    pub(crate) fn known(&self) -> usize {
        self.swarm.counts().known
    }

    /// How the trackers stand.
    pub(crate) fn trackers(&self) -> Vec<TrackerStatus> {
        self.trackers.status()
    }

    /// Addresses that were good, for whoever goes on with this torrent; at most `most`.
    pub(crate) fn good_addresses(&self, most: usize) -> Vec<SocketAddr> {
        self.swarm.worth_keeping(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cx::{Lease, Out, Rng};
    use crate::outside::Outside;
    use crate::rate::Trunk;
    use piecemeal_discovery::tracker::Family;
    use piecemeal_package::BlockPool;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn a_routers_port_is_for_peers_outside_and_ipv4_alone() {
        let (mut rng, mut pool, mut out) = (Rng::from_seed([1; 32]), BlockPool::new(1), Out::default());
        let mut lease = Lease {
            down: Trunk::unlimited(),
            up: Trunk::unlimited(),
            upload_bufs: 0,
            outside: Outside { port_v4: 7000, ..Outside::at(6881) },
            gate: Default::default(),
        };
        let mut cx = Cx { now: Time::ZERO, rng: &mut rng, pool: &mut pool, lease: &mut lease, out: &mut out };
        let settings = Arc::new(Settings { port: 6881, ..Settings::default() });
        let tiers = [vec!["http://a.example/announce".to_owned()]];
        let mut finder = Finder::new(&mut cx, TorrentId(1), settings, InfoHash([7; 20]), &tiers, false);
        for (peer, expected) in [
            ("203.0.113.9:1", 7000),
            ("[::ffff:203.0.113.9]:1", 7000),
            ("192.168.1.9:1", 6881),
            ("127.0.0.1:1", 6881),
            ("[2001:db8::9]:1", 6881),
        ] {
            assert_eq!(finder.port_for(&cx, peer.parse().unwrap()), expected, "{peer}");
        }
        // A torrent that begins after the router said its port tells trackers of it, each family of its own.
        finder.start(&mut cx);
        finder.announce(&mut cx, AnnounceFacts::default());
        let ports = cx.out.net.iter().map(|wish| match wish {
            Net::Fetch(_, fetch) => {
                (fetch.family, fetch.url.contains("port=7000"), fetch.url.contains("port=6881"))
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(ports.collect::<Vec<_>>(), [(Family::V4, true, false), (Family::V6, false, true)]);
    }
}
