//! Events in random order against a model of who is where.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What happens; numbers choose among what is there.
#[derive(Clone, Copy, Debug)]
enum Event {
    Accept { host: u8 },
    Bytes { whom: u8, most: u8 },
    Wrote { whom: u8, bytes: u8 },
    Hangup { whom: u8 },
    Leave { whom: u8 },
    Dial { torrent: u8 },
    Dialed { which: u8, well: bool },
    Open { torrent: u8, open: bool },
    Add,
    Remove { torrent: u8 },
    Wait { millis: u16 },
    Shutdown,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => (0..6u8).prop_map(|host| Event::Accept { host }),
        40 => (any::<u8>(), 1..=80u8).prop_map(|(whom, most)| Event::Bytes { whom, most }),
        8 => (any::<u8>(), any::<u8>()).prop_map(|(whom, bytes)| Event::Wrote { whom, bytes }),
        5 => any::<u8>().prop_map(|whom| Event::Hangup { whom }),
        5 => any::<u8>().prop_map(|whom| Event::Leave { whom }),
        25 => any::<u8>().prop_map(|torrent| Event::Dial { torrent }),
        20 => (any::<u8>(), any::<bool>()).prop_map(|(which, well)| Event::Dialed { which, well }),
        6 => (any::<u8>(), prop::bool::weighted(0.7))
            .prop_map(|(torrent, open)| Event::Open { torrent, open }),
        2 => Just(Event::Add),
        1 => any::<u8>().prop_map(|torrent| Event::Remove { torrent }),
        10 => (0..3_000u16).prop_map(|millis| Event::Wait { millis }),
        1 => prop::bool::weighted(0.1).prop_map(|ends| if ends { Event::Shutdown } else { Event::Add }),
    ]
}

/// A connection that the Server has, as its peer sees it.
struct Line {
    /// What the peer says, and how much of that was taken.
    script: Vec<u8>,
    said: usize,
    /// What we called it for.
    dialed: Option<SocketAddr>,
}

#[derive(Default)]
struct Model {
    now: Time,
    next_beat: Time,
    serial: u64,
    shut: bool,
    seated: BTreeMap<TorrentId, bool>,
    lines: BTreeMap<ConnId, Line>,
    handed: BTreeSet<ConnId>,
    /// What the Shard asked for and heard nothing of; each address is asked for once.
    asked: BTreeMap<SocketAddr, TorrentId>,
    /// What the shell is busy with.
    dialing: BTreeMap<DialId, SocketAddr>,
    dialed_at: Vec<Time>,
}

const LIMITS: (usize, usize, usize) = (12, 40, 3);

fn nth<K: Copy, V>(map: &BTreeMap<K, V>, number: u8) -> Option<K> {
    map.keys().nth(usize::from(number) % map.len().max(1)).copied()
}

impl Model {
    /// What the peer on the next line says: mostly as it should, sometimes for nobody, to itself, or nonsense.
    fn script(&self, torrent: TorrentId) -> Vec<u8> {
        let who = if self.serial % 11 == 3 { US } else { PEER };
        let mut script = hello(who, torrent).to_vec();
        if self.serial % 7 == 5 {
            script[(self.serial % 68) as usize] ^= 1;
        }
        script.extend((0..self.serial % 3).map(|byte| byte as u8));
        script
    }

    fn line(&mut self, torrent: TorrentId, dialed: Option<SocketAddr>) -> ConnId {
        self.serial += 1;
        let line = Line { script: self.script(torrent), said: 0, dialed };
        self.lines.insert(ConnId(self.serial), line);
        ConnId(self.serial)
    }

    fn happens(&mut self, server: &mut Server, event: Event) {
        let now = self.now;
        match event {
            Event::Accept { host: from } => {
                let torrent = nth(&self.seated, from).unwrap_or(TorrentId(0));
                let conn = self.line(torrent, None);
                server.on_accepted(now, conn, host(u32::from(from)), Carrier::Tcp);
            }
            Event::Bytes { whom, most } => self.bytes(server, whom, most),
            Event::Wrote { whom, bytes } => {
                let Some(conn) = nth(&self.lines, whom) else { return };
                let there = server.with_sealed(conn, |slices| match slices {
                    [Sending::Bytes(bytes)] => bytes.len(),
                    _ => panic!("one slice of bytes"),
                });
                if let Some(there) = there {
                    server.on_wrote(now, conn, there.min(usize::from(bytes)));
                }
            }
            Event::Hangup { whom } => {
                let Some(conn) = nth(&self.lines, whom) else { return };
                server.on_closed(now, conn, Goodbye::Closed);
                // Gone from here on; for whom it was dialed must be told.
                let line = self.lines.remove(&conn).expect("chosen among them");
                assert!(line.dialed.is_none_or(|to| self.asked.contains_key(&to)));
            }
            Event::Leave { whom } => {
                let count = self.handed.len().max(1);
                let Some(conn) = self.handed.iter().nth(usize::from(whom) % count).copied() else { return };
                self.handed.remove(&conn);
                server.on_note(now, Note::Left { conn });
            }
            Event::Dial { torrent } => {
                // A Shard may ask for what was removed behind its back.
                let torrent = nth(&self.seated, torrent).unwrap_or(TorrentId(0));
                self.serial += 1;
                let to = host(0x1000 + self.serial as u32);
                self.asked.insert(to, torrent);
                server.on_note(now, Note::Dial { torrent, to, road: Road::Any });
            }
            Event::Dialed { which, well } => {
                let Some(dial) = nth(&self.dialing, which) else { return };
                let to = self.dialing.remove(&dial).expect("chosen among them");
                let torrent = self.asked.get(&to).copied().unwrap_or(TorrentId(0));
                let conn = well.then(|| self.line(torrent, Some(to)));
                server.on_dialed(now, dial, conn.ok_or("refused".into()));
            }
            other => self.rules(server, other),
        }
    }

    fn bytes(&mut self, server: &mut Server, whom: u8, most: u8) {
        let Some(conn) = nth(&self.lines, whom) else { return };
        let Some(line) = self.lines.get_mut(&conn) else { return };
        let part = &line.script[line.said..];
        let part = &part[..part.len().min(usize::from(most))];
        let ate = server.on_bytes(self.now, conn, part);
        assert_eq!(ate, Ate { bytes: part.len(), thirsty: false });
        line.said += ate.bytes;
    }

    fn rules(&mut self, server: &mut Server, event: Event) {
        let now = self.now;
        match event {
            Event::Open { torrent, open } => {
                let Some(torrent) = nth(&self.seated, torrent) else { return };
                self.seated.insert(torrent, open);
                server.on_note(now, Note::Open { torrent, open });
            }
            Event::Add => {
                self.serial += 1;
                let torrent = TorrentId(self.serial as u32);
                if !self.shut {
                    self.seated.insert(torrent, true);
                }
                server.on_command(now, Command::Add(seating(torrent, meta(torrent))));
                server.on_note(now, Note::Open { torrent, open: true });
            }
            Event::Remove { torrent } => {
                let Some(torrent) = nth(&self.seated, torrent) else { return };
                self.seated.remove(&torrent);
                server.on_command(now, Command::Remove { torrent, delete: false });
            }
            Event::Wait { millis } => {
                let until = now + Duration::from_millis(millis.into());
                while self.next_beat <= until {
                    self.beat(server);
                }
                self.now = until;
            }
            Event::Shutdown => {
                self.shut = true;
                self.seated.clear();
                server.on_command(now, Command::Shutdown);
            }
            _ => unreachable!("the rest is done"),
        }
    }

    /// One heartbeat, when it is due.
    fn beat(&mut self, server: &mut Server) {
        self.now = self.now.max(self.next_beat);
        self.next_beat = server.heartbeat(self.now);
        assert!(self.next_beat > self.now, "a beat does all that is due");
        self.look(server);
    }

    /// Looks at what came out and whether all laws hold.
    fn look(&mut self, server: &mut Server) {
        let out = std::mem::take(server.out());
        for note in out.notes {
            match note {
                Note::Hand(handed) => {
                    assert_eq!(self.seated.get(&handed.torrent), Some(&true), "handed to an open torrent");
                    let line =
                        self.lines.remove(&handed.conn).expect("handed over once, and not when closed");
                    assert_eq!(line.dialed.is_some(), handed.outgoing);
                    assert_eq!(handed.leftover, line.script[HANDSHAKE_BYTES..line.said]);
                    if let Some(to) = line.dialed {
                        assert_eq!(to, handed.addr);
                        assert!(self.asked.remove(&to).is_some(), "a dial has one answer");
                    }
                    self.handed.insert(handed.conn);
                    // As the shell does it.
                    written(server, handed.conn, 1000);
                }
                Note::DialFailed { torrent, to, .. } => {
                    assert_eq!(self.asked.remove(&to), Some(torrent), "a dial has one answer");
                }
                Note::Seat(_) | Note::Unseat { .. } => {}
                _ => panic!("a note nobody caused"),
            }
        }
        for wish in out.net {
            match wish {
                Net::Close(conn, _) => {
                    let line = self.lines.remove(&conn).expect("closed once, and not when handed over");
                    assert!(
                        line.dialed.is_none_or(|to| !self.asked.contains_key(&to)),
                        "a dial has an answer"
                    );
                }
                Net::Dial { dial, to, .. } => {
                    assert!(self.dialing.insert(dial, to).is_none(), "each dial has its number");
                    self.dialed_at.push(self.now);
                }
                Net::Write(_) => {}
                other => panic!("a wish nobody had: {other:?}"),
            }
        }
        self.counts(server);
        // The shell calls soon after something happened.
        self.next_beat = server.heartbeat(self.now);
        assert!(
            server.out().net.is_empty() || server.dials.next_due() != Time::NEVER || !self.dialing.is_empty()
        );
        if !server.out().net.is_empty() || !server.out().notes.is_empty() {
            self.look(server);
        }
    }

    fn counts(&self, server: &Server) {
        let (max_pending, max_conns, max_per_ip) = LIMITS;
        assert_eq!(self.lines.keys().collect::<Vec<_>>(), server.shaking.keys().collect::<Vec<_>>());
        assert_eq!(self.dialing.keys().copied().collect::<Vec<_>>(), server.dials.numbers());
        assert_eq!(self.handed.iter().collect::<Vec<_>>(), server.handed.keys().collect::<Vec<_>>());
        assert_eq!(server.deadlines.len(), server.shaking.len());
        let called = self.lines.values().filter(|line| line.dialed.is_some()).count();
        assert_eq!(server.callers.count(), self.lines.len() - called);
        assert!(server.callers.count() <= max_pending);
        assert!(called + self.dialing.len() <= max_pending);
        assert!(server.conns() <= max_conns);
        for from in 0..6 {
            assert!(server.callers.count_from(host(from)) <= max_per_ip);
        }
        let window = self.dialed_at.windows(31).last();
        assert!(window.is_none_or(|dials| dials[30].since(dials[0]) >= Duration::from_secs(1)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_lost_and_nobody_counted_twice(events in prop::collection::vec(event(), 1..400)) {
        let (max_pending, max_conns, max_pending_per_ip) = LIMITS;
        let settings = Settings { max_pending, max_conns, max_pending_per_ip, ..settings() };
        let mut server = Server::new(settings, [0; 32]);
        let mut model = Model { next_beat: Time::NEVER, ..Model::default() };
        model.happens(&mut server, Event::Add);
        for event in events {
            model.happens(&mut server, event);
            model.look(&mut server);
        }
        // The shell answers what it still owes, then time passes: nothing may be left but what the Shard holds.
        while !model.dialing.is_empty() || model.next_beat != Time::NEVER {
            model.happens(&mut server, Event::Dialed { which: 0, well: false });
            model.look(&mut server);
            if model.next_beat != Time::NEVER {
                model.beat(&mut server);
            }
        }
        prop_assert!(model.lines.is_empty());
        prop_assert!(model.asked.is_empty(), "unanswered: {:?}", model.asked);
        prop_assert_eq!(server.conns(), model.handed.len());
    }
}
