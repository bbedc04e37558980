//! Items that others stored with us (BEP 44), and signing and checking them.
//!
//! Owns the items and the rules of replacing one. Tokens and datagrams are the node's. At most [`MAX_ITEMS`], of which
//! the one farthest from our id makes room.

use std::collections::BTreeMap;
use std::time::Duration;

use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Sha512, Signature, SigningKey, VerifyingKey};
use piecemeal_metainfo::bencode::{self, Limits};
use piecemeal_metainfo::{Time, sha1};
use piecemeal_wire::krpc::{MAX_SALT_BYTES, MAX_VALUE_BYTES, NodeId, PutItem, PutSigned, code};
use thiserror::Error;

/// Items at once; as many as libtorrent keeps. An item is at most 1.2 KB.
pub(super) const MAX_ITEMS: usize = 700;
/// How long an item is kept that nobody stores again (BEP 44).
const LIFE: Duration = Duration::from_secs(2 * 60 * 60);

/// Something stored in the DHT (BEP 44): found, or to be stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The bencoded value: canonical, at most [`MAX_VALUE_BYTES`].
    pub value: Vec<u8>,
    /// Whose it is and which version; `None`: it is immutable, and its key is its hash.
    pub signed: Option<Signed>,
}

/// What makes an item mutable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// The public key of its owner (ed25519).
    pub key: [u8; 32],
    /// Which of the owner's items; may be empty, at most [`MAX_SALT_BYTES`].
    pub salt: Vec<u8>,
    /// Which version, from 0.
    pub seq: i64,
    /// Over salt, seq and value.
    pub signature: [u8; 64],
}

/// A key to sign mutable items with.
pub struct SecretKey(ExpandedSecretKey);

/// Why a value can not be an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ItemError {
    /// More than [`MAX_VALUE_BYTES`] of bencode.
    #[error("a value of {0} bytes is too big")]
    ValueTooBig(usize),
    /// Not bencode, or not in its canonical form.
    #[error("the value is not canonical bencode")]
    NotCanonical,
    /// More than [`MAX_SALT_BYTES`].
    #[error("a salt of {0} bytes is too long")]
    SaltTooLong(usize),
    /// Below 0.
    #[error("a sequence number can not be negative")]
    NegativeSeq,
    /// Not by this key, or over something else.
    #[error("the signature does not fit")]
    BadSignature,
}

impl SecretKey {
    /// From 32 secret random bytes, as RFC 8032 has it.
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        SecretKey(ExpandedSecretKey::from(&SigningKey::from_bytes(seed).to_bytes()))
    }

    /// From the 64 bytes that other programs keep: scalar and prefix.
    pub fn from_expanded(bytes: &[u8; 64]) -> SecretKey {
        SecretKey(ExpandedSecretKey::from_bytes(bytes))
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> [u8; 32] {
        VerifyingKey::from(&self.0).to_bytes()
    }
}

impl Item {
    /// An item whose key is its hash.
    ///
    /// # Errors
    /// If the value is too big or not canonical bencode.
    pub fn immutable(value: Vec<u8>) -> Result<Item, ItemError> {
        let item = Item { value, signed: None };
        item.check().map(|()| item)
    }

    /// An item that its owner can replace, signed.
    ///
    /// # Errors
    /// If the value is too big or not canonical bencode, the salt too long, or `seq` negative.
    pub fn sign(secret: &SecretKey, salt: Vec<u8>, seq: i64, value: Vec<u8>) -> Result<Item, ItemError> {
        check_parts(&value, &salt, seq)?;
        let public = VerifyingKey::from(&secret.0);
        let signature = raw_sign::<Sha512>(&secret.0, &signed_bytes(&salt, seq, &value), &public).to_bytes();
        Ok(Item { value, signed: Some(Signed { key: public.to_bytes(), salt, seq, signature }) })
    }

    /// Under which key it is stored.
    pub fn target(&self) -> NodeId {
        match &self.signed {
            None => NodeId(sha1(&self.value)),
            Some(signed) => mutable_target(&signed.key, &signed.salt),
        }
    }

    /// Whether it may be stored: sizes, form and signature.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), ItemError> {
        let (salt, seq) = self.signed.as_ref().map_or((&[][..], 0), |signed| (&signed.salt[..], signed.seq));
        check_parts(&self.value, salt, seq)?;
        let Some(signed) = &self.signed else { return Ok(()) };
        let key = VerifyingKey::from_bytes(&signed.key).map_err(|_| ItemError::BadSignature)?;
        let signature = Signature::from_bytes(&signed.signature);
        let bytes = signed_bytes(&signed.salt, signed.seq, &self.value);
        key.verify_strict(&bytes, &signature).map_err(|_| ItemError::BadSignature)
    }

    /// As it goes over the wire.
    pub(super) fn as_put(&self, cas: Option<i64>) -> PutItem<'_> {
        let signed = self.signed.as_ref().map(|signed| PutSigned {
            key: &signed.key,
            signature: &signed.signature,
            seq: signed.seq,
            salt: &signed.salt,
            cas,
        });
        PutItem { value: &self.value, signed }
    }

    pub(super) fn from_put(put: &PutItem<'_>) -> Item {
        let signed = put.signed.map(|signed| Signed {
            key: *signed.key,
            salt: signed.salt.to_vec(),
            seq: signed.seq,
            signature: *signed.signature,
        });
        Item { value: put.value.to_vec(), signed }
    }
}

/// Under which key the items of `key` and `salt` are stored.
pub fn mutable_target(key: &[u8; 32], salt: &[u8]) -> NodeId {
    NodeId(sha1(&[key, salt].concat()))
}

fn check_parts(value: &[u8], salt: &[u8], seq: i64) -> Result<(), ItemError> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(ItemError::ValueTooBig(value.len()));
    }
    if salt.len() > MAX_SALT_BYTES {
        return Err(ItemError::SaltTooLong(salt.len()));
    }
    if seq < 0 {
        return Err(ItemError::NegativeSeq);
    }
    let canonical = bencode::decode(value, Limits::DHT).is_ok_and(|tape| tape.flags().canonical());
    if canonical { Ok(()) } else { Err(ItemError::NotCanonical) }
}

/// The parts of a dictionary without its ends, as BEP 44 has them.
fn signed_bytes(salt: &[u8], seq: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !salt.is_empty() {
        bytes.extend_from_slice(format!("4:salt{}:", salt.len()).as_bytes());
        bytes.extend_from_slice(salt);
    }
    bytes.extend_from_slice(format!("3:seqi{seq}e1:v").as_bytes());
    bytes.extend_from_slice(value);
    bytes
}

/// A refusal in the words of the wire: a code and a text.
pub(super) type Refused = (i64, &'static str);

#[derive(Debug)]
pub(super) struct ItemStore {
    own: NodeId,
    /// By distance from our own id, so that the last is the first to go. Bound: [`MAX_ITEMS`].
    items: BTreeMap<NodeId, (Item, Time)>,
}

impl ItemStore {
    pub(super) fn new(own: NodeId) -> ItemStore {
        ItemStore { own, items: BTreeMap::new() }
    }

    /// Our id has changed, and with it what is far.
    pub(super) fn move_to(&mut self, own: NodeId) {
        let was = std::mem::replace(&mut self.own, own);
        let items = std::mem::take(&mut self.items);
        self.items = items.into_iter().map(|(key, item)| (was.distance(key).distance(own), item)).collect();
    }

    /// Stores an item, or says why not.
    pub(super) fn put(&mut self, now: Time, put: &PutItem<'_>) -> Result<(), Refused> {
        let item = Item::from_put(put);
        item.check().map_err(refused)?;
        let key = self.own.distance(item.target());
        let stored = self.items.get(&key).filter(|(_, since)| now.since(*since) < LIFE);
        if let (Some(new), Some((old, _))) = (&put.signed, stored) {
            let old_seq = old.signed.as_ref().map_or(-1, |signed| signed.seq);
            if new.cas.is_some_and(|cas| cas != old_seq) {
                return Err((code::CAS, "cas is not the stored seq"));
            }
            if new.seq < old_seq || (new.seq == old_seq && old.value != item.value) {
                return Err((code::SEQ, "seq is not newer than the stored one"));
            }
        }
        if !self.items.contains_key(&key) && self.items.len() >= MAX_ITEMS {
            match self.items.last_key_value() {
                Some((farthest, _)) if *farthest > key => _ = self.items.pop_last(),
                _ => return Err((code::SERVER, "no room")),
            }
        }
        self.items.insert(key, (item, now));
        Ok(())
    }

    pub(super) fn get(&self, now: Time, target: NodeId) -> Option<&Item> {
        let (item, since) = self.items.get(&self.own.distance(target))?;
        (now.since(*since) < LIFE).then_some(item)
    }

    pub(super) fn expire(&mut self, now: Time) {
        self.items.retain(|_, (_, since)| now.since(*since) < LIFE);
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes of heap, about.
    pub(super) fn heap_bytes(&self) -> usize {
        let row = (size_of::<NodeId>() + size_of::<(Item, Time)>()) * 3 / 2;
        let own = |item: &Item| {
            item.value.capacity() + item.signed.as_ref().map_or(0, |signed| signed.salt.capacity())
        };
        self.items.values().map(|(item, _)| row + own(item)).sum()
    }
}

fn refused(why: ItemError) -> Refused {
    match why {
        ItemError::ValueTooBig(_) => (code::VALUE_TOO_BIG, "v is too big"),
        ItemError::NotCanonical => (code::PROTOCOL, "v is not canonical"),
        ItemError::SaltTooLong(_) => (code::SALT_TOO_BIG, "salt is too long"),
        ItemError::NegativeSeq => (code::PROTOCOL, "bad seq"),
        ItemError::BadSignature => (code::SIGNATURE, "invalid signature"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_metainfo::{from_hex, to_hex};

    const VALUE: &[u8] = b"12:Hello World!";

    fn secret() -> SecretKey {
        SecretKey::from_expanded(
            &from_hex(
                "e06d3183d14159228433ed599221b80bd0a5ce8352e4bdf0262f76786ef1c74d\
                 b7e7a9fea2c0eb269d61e3b38e450a22e754941ac78479d6c54e1faf6037881d",
            )
            .unwrap(),
        )
    }

    fn item(seq: i64, value: &[u8]) -> Item {
        Item::sign(&secret(), b"foobar".to_vec(), seq, value.to_vec()).unwrap()
    }

    #[test]
    fn the_published_signatures() {
        let public = "77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548";
        assert_eq!(to_hex(&secret().public()), public);
        let table = [
            (
                "",
                "4a533d47ec9c7d95b1ad75f576cffc641853b750",
                "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff\
                 1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01",
            ),
            (
                "foobar",
                "411eba73b6f087ca51a3795d9c8c938d365e32c1",
                "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d\
                 df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08",
            ),
        ];
        for (salt, target, signature) in table {
            let item = Item::sign(&secret(), salt.into(), 1, VALUE.to_vec()).unwrap();
            assert_eq!(item.target().to_string(), target);
            assert_eq!(to_hex(&item.signed.as_ref().unwrap().signature), signature);
            assert_eq!(item.check(), Ok(()));
        }
        let fixed = Item::immutable(VALUE.to_vec()).unwrap();
        assert_eq!(fixed.target().to_string(), "e5f96f6f38320f0f33959cb4d3d656452117aadb");
    }

    #[test]
    fn salts_and_values_have_an_end() {
        let sign = |salt: usize, value: &[u8]| Item::sign(&secret(), vec![b's'; salt], 1, value.to_vec());
        assert_eq!(sign(64, VALUE).unwrap().check(), Ok(()));
        assert_eq!(sign(65, VALUE), Err(ItemError::SaltTooLong(65)));
        let value = |len: usize| [format!("{len}:").into_bytes(), vec![b'x'; len]].concat();
        assert!(sign(0, &value(996)).is_ok());
        assert_eq!(sign(0, &value(997)), Err(ItemError::ValueTooBig(1001)));
        assert_eq!(sign(0, b"i01e"), Err(ItemError::NotCanonical));
        assert_eq!(Item::immutable(b"d1:bi1e1:ai1ee".to_vec()), Err(ItemError::NotCanonical));
        assert_eq!(Item::immutable(b"abc".to_vec()), Err(ItemError::NotCanonical));
        assert_eq!(Item::sign(&secret(), vec![], -1, VALUE.to_vec()), Err(ItemError::NegativeSeq));
    }

    #[test]
    fn a_changed_item_does_not_fit_its_signature() {
        let good = item(1, VALUE);
        let mut bad = [good.clone(), good.clone(), good.clone(), good.clone()];
        bad[0].value = b"12:Hello World?".to_vec();
        bad[1].signed.as_mut().unwrap().seq = 2;
        bad[2].signed.as_mut().unwrap().salt = b"foobaz".to_vec();
        bad[3].signed.as_mut().unwrap().key = SecretKey::from_seed(&[7; 32]).public();
        for item in bad {
            assert_eq!(item.check(), Err(ItemError::BadSignature));
        }
        assert_eq!(
            Item::sign(&SecretKey::from_seed(&[7; 32]), vec![], 0, VALUE.to_vec()).unwrap().check(),
            Ok(())
        );
    }

    #[test]
    fn replacing() {
        let mut store = ItemStore::new(NodeId([0; 20]));
        let mut put = |minutes: u64, seq, value: &[u8], cas| {
            let now = Time::ZERO + Duration::from_secs(60 * minutes);
            store.put(now, &item(seq, value).as_put(cas)).map_err(|(code, _)| code)
        };
        assert_eq!(put(0, 5, b"1:a", Some(3)), Ok(()), "there is nothing to compare with");
        assert_eq!(put(0, 5, b"1:a", None), Ok(()), "the same again keeps it alive");
        assert_eq!(put(0, 5, b"1:b", None), Err(code::SEQ));
        assert_eq!(put(0, 4, b"1:a", None), Err(code::SEQ));
        assert_eq!(put(0, 6, b"1:b", Some(4)), Err(code::CAS));
        assert_eq!(put(0, 6, b"1:b", Some(5)), Ok(()));
        assert_eq!(put(121, 1, b"1:c", None), Ok(()), "what is dead does not count");
        let mut forged = item(9, b"1:z");
        forged.value = b"1:y".to_vec();
        assert_eq!(
            store.put(Time::ZERO, &forged.as_put(None)).map_err(|(code, _)| code),
            Err(code::SIGNATURE)
        );
    }

    #[test]
    fn items_die_and_the_farthest_makes_room() {
        let mut store = ItemStore::new(NodeId([0; 20]));
        for number in 0..1_000 {
            let _ =
                store.put(Time::ZERO, &Item::immutable(format!("i{number}e").into()).unwrap().as_put(None));
        }
        assert_eq!(store.len(), MAX_ITEMS);
        assert!(store.heap_bytes() < 2 << 20);
        let near = store.items.keys().next().copied().unwrap();
        store.move_to(NodeId([0xff; 20]));
        assert!(store.get(Time::ZERO, near).is_some());
        store.expire(Time::ZERO + LIFE);
        assert_eq!(store.len(), 0);
    }
}
