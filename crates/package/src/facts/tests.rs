use super::*;
use piecemeal_metainfo::PieceIndex;
use proptest::prelude::*;

fn facts() -> ResumeFacts {
    let mut have = Bitfield::new(11);
    have.set(PieceIndex(3));
    have.set(PieceIndex(10));
    let there = FileStamp { len: Some(77), mtime_nanos: -5_000_000_000_000_000_000_000, inode: 9 };
    ResumeFacts {
        info_hash: InfoHash([7; 20]),
        have,
        stamps: vec![there, FileStamp::default(), FileStamp { len: Some(0), mtime_nanos: 1 << 70, inode: 0 }],
        open: vec![
            OpenPiece { piece: PieceIndex(2), written: vec![5, 1 << 63] },
            OpenPiece { piece: PieceIndex(9), written: vec![] },
        ],
        wanted: vec![true, false],
        uploaded: 1 << 60,
        downloaded: 12,
        clean: true,
        boot: *b"0123456789abcdef",
    }
}

#[test]
fn come_back_as_they_were() {
    assert_eq!(ResumeFacts::decode(&facts().encode()), Ok(facts()));
}

#[test]
fn a_flipped_or_missing_byte_is_never_another_fact() {
    let whole = facts().encode();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            assert!(ResumeFacts::decode(&flipped).is_err(), "byte {at} bit {bit}");
        }
        assert_eq!(ResumeFacts::decode(&whole[..at]), Err(FactsError::Damaged));
        assert_eq!(ResumeFacts::decode(&whole[at + 1..]), Err(FactsError::Damaged));
    }
}

/// `body` with a right checksum.
fn sealed(version: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![version];
    out.extend_from_slice(body);
    let checksum = sha1(&out);
    out.extend_from_slice(&checksum);
    out
}

#[test]
fn another_version_is_told_apart_from_damage() {
    assert_eq!(ResumeFacts::decode(&sealed(2, b"de")), Err(FactsError::Version(2)));
    assert_eq!(ResumeFacts::decode(&sealed(1, b"de")), Err(FactsError::Field("pieces")));
    assert_eq!(ResumeFacts::decode(&sealed(1, b"d")), Err(FactsError::Damaged));
    assert_eq!(ResumeFacts::decode(&sealed(1, b"d6:piecesi99999999ee")), Err(FactsError::Field("pieces")));
}

proptest! {
    #[test]
    fn whole_nonsense_does_not_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(ResumeFacts::decode(&sealed(1, &body)).is_err());
        prop_assert!(ResumeFacts::decode(&body).is_err());
    }
}
