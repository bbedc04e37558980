use super::*;
use crate::test_kit::Torrent;
use proptest::prelude::*;

fn layout(piece_length: u32, entries: &[(u64, &'static str)], wanted: &[bool]) -> Layout {
    Layout::new(Torrent::new(piece_length, entries).meta, wanted.into())
}

fn spans(layout: &Layout, piece: u32, begin: u32, len: u32) -> Vec<Span> {
    let mut spans = Vec::new();
    layout.spans(PieceIndex(piece), begin, len, &mut spans);
    spans
}

fn file(at: u32, offset: u64, len: u32) -> Span {
    Span { place: Place::File(FileIndex(at)), offset, len }
}

fn part(offset: u64, len: u32) -> Span {
    Span { place: Place::Part, offset, len }
}

fn pad(len: u32) -> Span {
    Span { place: Place::Pad, offset: 0, len }
}

#[test]
fn a_piece_may_lie_in_many_places() {
    // 0: wanted, 1: empty, 2: not wanted, 3: pad, 4: link, 5: wanted.
    let entries = [(10_000, ""), (0, ""), (5_000, ""), (1_384, "p"), (0, "l"), (20_001, "")];
    let layout = layout(16_384, &entries, &[true, true, false, false, true, true]);
    assert_eq!(spans(&layout, 0, 0, 16_384), [file(0, 0, 10_000), part(10_000, 5_000), pad(1_384)]);
    assert_eq!(spans(&layout, 0, 9_999, 2), [file(0, 9_999, 1), part(10_000, 1)]);
    assert_eq!(spans(&layout, 1, 5, 10), [file(5, 5, 10)]);
    assert_eq!(spans(&layout, 2, 0, 16_384), [file(5, 16_384, 3_617)]);
    assert_eq!(spans(&layout, 3, 0, 1), []);
    assert_eq!(layout.wanted_bytes(), 30_001);
    assert!(layout.has_pad(PieceIndex(0)) && !layout.has_pad(PieceIndex(1)));
    assert_eq!(layout.wanted_bytes_in(PieceIndex(0)), 10_000);
    assert_eq!(layout.pieces_of(FileIndex(5)), 1..3);
    assert_eq!((layout.pieces_of(FileIndex(1)), layout.pieces_of(FileIndex(4))), (0..0, 0..0));
    assert!(Layout::in_files(&spans(&layout, 1, 0, 10)) && !Layout::in_files(&spans(&layout, 0, 0, 16_384)));
}

#[test]
fn unwanted_neighbours_share_one_span() {
    let layout =
        layout(16_384, &[(100, ""), (200, ""), (300, ""), (16_384, "")], &[false, false, false, true]);
    assert_eq!(spans(&layout, 0, 50, 600), [part(50, 550), file(3, 0, 50)]);
}

#[test]
fn blocks_end_with_their_piece() {
    let layout = layout(20_000, &[(40_001, "")], &[true]);
    assert_eq!(layout.piece_count(), 3);
    let table = [(0, 0, 16_384), (0, 16_384, 3_616), (0, 32_768, 0), (0, 1, 0), (2, 0, 1), (3, 0, 0)];
    for (piece, begin, len) in table {
        assert_eq!(layout.block_len(PieceIndex(piece), begin), len, "{piece} {begin}");
    }
    assert_eq!((layout.blocks(PieceIndex(0)), layout.blocks(PieceIndex(2))), (2, 1));
    assert_eq!((layout.piece(2), layout.piece(3)), (Some(PieceIndex(2)), None));
    let at = |begin, len| BlockRef { piece: PieceIndex(1), begin, len };
    assert!(layout.is_block(at(16_384, 3_616)) && !layout.is_block(at(16_384, 3_615)));
    assert!(layout.is_inside(at(19_999, 1)) && !layout.is_inside(at(19_999, 2)));
    assert!(!layout.is_inside(at(u32::MAX, 2)) && !layout.is_inside(at(5, 0)));
}

#[test]
fn what_is_not_marked_is_not_wanted() {
    let layout = layout(16_384, &[(20_000, ""), (20_000, "")], &[true]);
    assert_eq!(layout.wanted().iter_ones().map(|piece| piece.0).collect::<Vec<_>>(), [0, 1]);
    assert!(!layout.piece_wanted(PieceIndex(2)) && layout.has_part());
}

fn entries() -> impl Strategy<Value = Vec<(u64, &'static str)>> {
    let entry = (prop_oneof![Just(0u64), 1..50u64, 1..60_000u64], prop_oneof![3 => Just(""), 1 => Just("p")]);
    proptest::collection::vec(entry, 1..12).prop_map(|mut entries| {
        entries.push((1, ""));
        entries
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Against a table with a row a byte.
    #[test]
    fn agrees_with_a_table_of_bytes(entries in entries(), mask in any::<u16>(), from in any::<(u16, u32, u16)>(),
                                    piece_length in prop_oneof![Just(16_384u32), Just(20_000)]) {
        let wanted: Vec<bool> = (0..entries.len()).map(|at| mask >> at & 1 == 1).collect();
        let torrent = Torrent::new(piece_length, &entries);
        let layout = Layout::new(torrent.meta.clone(), wanted.clone().into());
        let mut table = Vec::new();
        for (at, (len, attr)) in entries.iter().enumerate() {
            let base = table.len() as u64;
            table.extend((0..*len).map(|offset| match (*attr, wanted[at]) {
                ("p", _) => None,
                (_, true) => Some((Place::File(FileIndex(at as u32)), offset)),
                (_, false) => Some((Place::Part, base + offset)),
            }));
        }
        let piece = PieceIndex(u32::from(from.0) % layout.piece_count());
        let (begin, len) = (from.1 % (piece_length + 10), u32::from(from.2));
        let bytes: Vec<_> = spans(&layout, piece.0, begin, len).iter().flat_map(|span| {
            let pad = span.place == Place::Pad;
            (0..u64::from(span.len)).map(move |at| (!pad).then_some((span.place, span.offset + at)))
        }).collect();
        let row = table.chunks(piece_length as usize).nth(piece.at()).unwrap();
        let start = (begin as usize).min(row.len());
        let want = &row[start..(start + len as usize).min(row.len())];
        prop_assert_eq!(&bytes[..], want);
        let wants = row.iter().filter(|byte| matches!(byte, Some((Place::File(_), _)))).count();
        prop_assert_eq!(layout.wanted_bytes_in(piece) as usize, wants);
        prop_assert_eq!(layout.piece_wanted(piece), wants > 0);
        prop_assert_eq!(layout.has_pad(piece), row.contains(&None));
        prop_assert_eq!(layout.piece_len(piece) as usize, row.len());
        let wanted_bytes = table.iter().flatten().filter(|(place, _)| *place != Place::Part).count();
        prop_assert_eq!(layout.wanted_bytes(), wanted_bytes as u64);
    }
}
