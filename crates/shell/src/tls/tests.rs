use super::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

const NAME: &str = "a torrent, of that name";

/// One who signs certificates.
struct Root {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Root {
    fn new() -> Root {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "root");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Root { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate with its key, made out to a common name, changed by `change` before it is signed.
    fn signs(&self, common: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn identity(&self, common: &str) -> Identity {
        let (certificate, key) = self.signs(common, |_| {});
        Identity::new(&self.pem, NAME, certificate.as_bytes(), key.as_bytes()).unwrap()
    }
}

fn hashes(byte: u8) -> InfoHashes {
    InfoHashes { v1: Some(InfoHash([byte; 20])), v2: None }
}

/// All identities of one end: of torrent 1, and of 2.
fn end(one: Identity, two: Option<Identity>) -> Identities {
    let mut all = Identities::default();
    all.add(TorrentId(1), hashes(0xab), one);
    if let Some(two) = two {
        all.add(TorrentId(2), hashes(0xcd), two);
    }
    all
}

/// Lets both talk, `step` bytes at a time, until neither has anything to say; what was proved, and what each heard.
fn talk(
    ends: [&mut Tls; 2],
    known: [&Identities; 2],
    step: usize,
    says: &[u8],
) -> Result<(Option<TorrentId>, [Vec<u8>; 2]), String> {
    let [caller, called] = ends;
    let (mut heard, mut proved, mut said) = (<[Vec<u8>; 2]>::default(), None, [false; 2]);
    for _ in 0..100 {
        let mut quiet = true;
        for called_speaks in [false, true] {
            let (from, to) =
                if called_speaks { (&mut *called, &mut *caller) } else { (&mut *caller, &mut *called) };
            let mut words = Vec::new();
            from.words(&mut words).unwrap();
            if from.is_ready() && !std::mem::replace(&mut said[usize::from(called_speaks)], true) {
                from.seal(says, &mut words).unwrap();
            }
            quiet &= words.is_empty();
            let at = usize::from(!called_speaks);
            for some in words.chunks(step) {
                let first = heard[at].is_empty() && proved.is_none();
                let one = to.hear(some, known[at], &mut heard[at])?;
                assert!(one.is_none() || first, "told once, and first");
                proved = proved.or(one);
            }
        }
        if quiet {
            return Ok((proved, heard));
        }
    }
    panic!("they talk for ever");
}

#[test]
fn who_belongs_to_a_torrent_proves_it_and_is_understood() {
    let (root, other) = (Root::new(), Root::new());
    let says: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    for (common, step) in [(NAME, 1), ("*", 7), (NAME, 1400), ("*", usize::MAX)] {
        let ours = end(root.identity(common), None);
        let theirs = end(root.identity("*"), Some(other.identity("*")));
        let (mut caller, mut called) = (Tls::call(&ours, TorrentId(1)).unwrap(), Tls::caller());
        let (proved, heard) = talk([&mut caller, &mut called], [&ours, &theirs], step, &says).unwrap();
        assert_eq!(proved, Some(TorrentId(1)));
        assert!(heard[0] == says && heard[1] == says, "{step}");
    }
}

#[test]
fn who_does_not_is_refused() {
    let (root, other) = (Root::new(), Root::new());
    let talks = |ours: &Identities, theirs: &Identities, torrent| {
        let (mut caller, mut called) = (Tls::call(ours, TorrentId(torrent)).unwrap(), Tls::caller());
        talk([&mut caller, &mut called], [ours, theirs], 1400, b"words").map(|(_, heard)| heard)
    };
    let good = end(root.identity(NAME), None);
    // The wrong root at either end, each by its own lights in the right.
    let wrong = end(other.identity(NAME), None);
    assert!(talks(&wrong, &good, 1).is_err() && talks(&good, &wrong, 1).is_err());
    // A torrent that is not there.
    let two = end(root.identity(NAME), Some(root.identity(NAME)));
    assert_eq!(talks(&two, &good, 2).unwrap_err(), "names no torrent that is here");
    assert!(Tls::call(&good, TorrentId(2)).is_err());
    let mut gone = end(root.identity(NAME), None);
    assert!(gone.any());
    gone.remove(TorrentId(1));
    assert!(!gone.any() && talks(&good, &gone, 1).is_err());
}

#[test]
fn certificates_that_peers_would_refuse_are_refused_at_once() {
    let (root, other) = (Root::new(), Root::new());
    let (good, key) = root.signs(NAME, |_| {});
    let judged = |root: &str, chain: &str, key: &str| {
        Identity::new(root, NAME, chain.as_bytes(), key.as_bytes()).map(drop).map_err(|why| why.to_string())
    };
    assert_eq!(judged(&root.pem, &good, &key), Ok(()));
    let begins = |result: Result<(), String>, with: &str| {
        let why = result.unwrap_err();
        assert!(why.starts_with(with), "{why}");
    };
    begins(judged("nonsense", &good, &key), "the torrent's root certificate: ");
    begins(judged(&root.pem, "nonsense", &key), "the certificate: there is none");
    begins(judged(&root.pem, &good, "nonsense"), "the key: ");
    begins(judged(&root.pem, &good, &other.signs(NAME, |_| {}).1), "the key: ");
    begins(judged(&other.pem, &good, &key), "the certificate is none of this torrent: ");
    for (common, alternative, well) in [
        ("another", None, false),
        ("another", Some(NAME), true),
        ("another", Some("*"), true),
        ("another", Some("a third"), false),
        ("another", Some("*.a"), false),
        ("", None, false),
    ] {
        let (chain, key) = root.signs(common, |params| {
            let names = alternative.map(|name| rcgen::SanType::DnsName(name.try_into().unwrap()));
            params.subject_alt_names.extend(names);
        });
        let result = judged(&root.pem, &chain, &key);
        assert_eq!(result.is_ok(), well, "{common} {alternative:?}: {result:?}");
    }
    let (late, key) = root.signs(NAME, |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
    });
    begins(judged(&root.pem, &late, &key), "the certificate is none of this torrent: ");
}

#[test]
fn callers_who_speak_tls_are_told_from_others() {
    let root = Root::new();
    let ours = end(root.identity("*"), None);
    let mut words = Vec::new();
    Tls::call(&ours, TorrentId(1)).unwrap().words(&mut words).unwrap();
    assert!(Tls::looks_like_hello(&words));
    for other in
        [&words[..5], b"\x13BitTorrent protocol", &[0x16, 3, 9, 0, 0, 1], &[0x16, 3, 1, 0, 0, 2], b""]
    {
        assert!(!Tls::looks_like_hello(other));
    }
}

/// Damage anywhere ends it, and never lets a byte through.
#[test]
fn damage_is_found() {
    let root = Root::new();
    let ours = end(root.identity("*"), None);
    for at in (0..2000).step_by(37) {
        let (mut caller, mut called) = (Tls::call(&ours, TorrentId(1)).unwrap(), Tls::caller());
        let (mut heard, mut passed, mut over) = (Vec::new(), 0, false);
        'talk: for _ in 0..6 {
            for called_speaks in [false, true] {
                let (from, to) =
                    if called_speaks { (&mut called, &mut caller) } else { (&mut caller, &mut called) };
                let mut words = Vec::new();
                from.words(&mut words).unwrap();
                if from.is_ready() {
                    from.seal(b"words", &mut words).unwrap();
                }
                if (passed..passed + words.len()).contains(&at) {
                    words[at - passed] ^= 0x40;
                }
                passed += words.len();
                over |= to.hear(&words, &ours, &mut heard).is_err();
                if over {
                    break 'talk;
                }
            }
        }
        assert!(over || passed <= at || heard.chunks(5).all(|word| word == b"words"), "{at}");
    }
}
