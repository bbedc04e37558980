use super::*;
use proptest::prelude::*;

fn decoded(payload: &[u8]) -> ExtensionHandshake {
    ExtensionHandshake::decode(payload).expect("a handshake")
}

#[test]
fn the_example_of_bep_10() {
    let got = decoded(b"d1:md11:LT_metadatai1e6:\xb5T_PEXi2ee1:pi6881e1:v13:\xc2\xb5Torrent 1.2e");
    assert_eq!(got.ids, ExtensionIds::default());
    assert_eq!(got.port, Some(6881));
    assert_eq!(got.client.as_deref(), Some("\u{b5}Torrent 1.2"));
}

#[test]
fn what_we_write_byte_for_byte() {
    let ours = ExtensionHandshake {
        ids: ExtensionIds::own(Extension::ALL),
        client: Some("piecemeal 0.1".to_owned()),
        port: Some(6881),
        your_ip: Some([192, 0, 2, 1].into()),
        reqq: Some(500),
        metadata_size: Some(31235),
        upload_only: Some(true),
        ..ExtensionHandshake::default()
    };
    let expected = b"d1:md11:lt_donthavei3e11:upload_onlyi5e12:ut_holepunchi4e11:ut_metadatai1e6:ut_pexi2ee\
        13:metadata_sizei31235e1:pi6881e4:reqqi500e11:upload_onlyi1e1:v13:piecemeal 0.16:yourip4:\xc0\0\x02\x01e";
    assert_eq!(ours.encode().escape_ascii().to_string(), expected.escape_ascii().to_string());
    assert_eq!(ExtensionHandshake::default().encode(), b"d1:mdee");
}

#[test]
fn numbers_out_of_range_are_as_if_not_said() {
    let table: &[(&[u8], Option<u32>)] = &[
        (b"d13:metadata_sizei1ee", Some(1)),
        (b"d13:metadata_sizei16777216ee", Some(16 << 20)),
        (b"d13:metadata_sizei16777217ee", None),
        (b"d13:metadata_sizei4611686018427387904ee", None),
        (b"d13:metadata_sizei0ee", None),
        (b"d13:metadata_sizei-1ee", None),
        (b"d13:metadata_size1:5e", None),
    ];
    for (payload, size) in table {
        assert_eq!(decoded(payload).metadata_size, *size);
    }
    let odd = decoded(b"d4:ipv43:abc4:ipv64:abcd1:mi5e1:pi65536e4:reqqi0e1:v3:\x1b\x1b\x1b6:yourip5:abcdee");
    assert_eq!(odd, ExtensionHandshake::default());
    assert_eq!(decoded(b"d1:pi0ee").port, None);
    assert_eq!(decoded(b"d4:reqqi4294967296ee").reqq, None);
    assert_eq!(decoded(b"d11:upload_onlyi-3ee").upload_only, Some(true));
    assert_eq!(decoded(b"d1:md6:ut_pexi256e11:ut_metadatai-1eee").ids, ExtensionIds::default());
    let mapped = decoded(b"d6:yourip16:\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01e");
    assert_eq!(mapped.your_ip, Some([127, 0, 0, 1].into()));
    let long = format!("d1:v1000:{}e", "x".repeat(1000));
    assert_eq!(decoded(long.as_bytes()).client.map(|v| v.len()), Some(64));
}

#[test]
fn what_is_no_handshake() {
    let bomb = format!("d1:ml{}ee", "de".repeat(1000));
    let table: &[&[u8]] = &[b"", b"le", b"i1e", b"d", b"d1:m", bomb.as_bytes(), &[b'l'; 200]];
    for payload in table {
        assert!(ExtensionHandshake::decode(payload).is_err(), "{}", payload.escape_ascii());
    }
    assert!(ExtensionHandshake::decode(b"de and more").is_ok());
}

#[test]
fn a_later_handshake_adds_changes_and_removes() {
    let mut ids = decoded(b"d1:md11:ut_metadatai3e6:ut_pexi1eee").ids;
    ids.update(&decoded(b"d1:md11:lt_donthavei7e11:ut_metadatai0e6:ut_pexi9eee").ids);
    assert_eq!(ids.get(Extension::Metadata), None);
    assert_eq!(ids.get(Extension::Pex), Some(9));
    assert_eq!(ids.get(Extension::DontHave), Some(7));
    ids.update(&decoded(b"de").ids);
    assert_eq!(ids.get(Extension::Pex), Some(9));
    ids.update(&decoded(b"d1:md11:ut_metadatai4eee").ids);
    assert_eq!(ids.get(Extension::Metadata), Some(4));
}

#[test]
fn own_ids_are_not_the_handshake_and_lead_back() {
    for extension in Extension::ALL {
        assert_ne!(extension.own_id(), HANDSHAKE_ID);
        assert_eq!(Extension::from_own_id(extension.own_id()), Some(extension));
        assert_eq!(ExtensionIds::own([extension]).get(extension), Some(extension.own_id()));
    }
    assert_eq!(Extension::from_own_id(HANDSHAKE_ID), None);
    assert_eq!(Extension::from_own_id(6), None);
}

#[test]
fn the_small_ones() {
    assert_eq!(decode_dont_have(&encode_dont_have(258)), Ok(258));
    assert_eq!(decode_dont_have(&[0; 3]), Err(ExtensionError::Length(3)));
    assert_eq!(decode_dont_have(&[0; 5]), Err(ExtensionError::Length(5)));
    assert_eq!(decode_upload_only(&[1]), Ok(true));
    assert_eq!(decode_upload_only(&[0]), Ok(false));
    assert_eq!(decode_upload_only(&[]), Err(ExtensionError::Length(0)));
}

fn any_handshake() -> impl Strategy<Value = ExtensionHandshake> {
    let ids = any::<[Option<u8>; 5]>().prop_map(ExtensionIds);
    let client = prop::option::of("[a-zA-Z0-9./]{1,64}");
    let ips = any::<(Option<[u8; 4]>, Option<[u8; 4]>, Option<[u8; 16]>)>();
    let numbers = (
        prop::option::of(1..=u16::MAX),
        prop::option::of(1..=u32::MAX),
        prop::option::of(1..=MAX_METADATA_BYTES),
        any::<Option<bool>>(),
    );
    (ids, client, ips, numbers).prop_map(|(ids, client, ips, numbers)| ExtensionHandshake {
        ids,
        client,
        port: numbers.0,
        your_ip: ips.0.map(IpAddr::from),
        ipv4: ips.1.map(Ipv4Addr::from),
        ipv6: ips.2.map(Ipv6Addr::from),
        reqq: numbers.1,
        metadata_size: numbers.2,
        upload_only: numbers.3,
    })
}

proptest! {
    #[test]
    fn round_trip(sent in any_handshake()) {
        let payload = sent.encode();
        prop_assert!(bencode::decode(&payload, Limits::PEER_EXTENSION).is_ok_and(|tape| tape.flags().canonical()));
        prop_assert_eq!(decoded(&payload), sent);
    }
}
