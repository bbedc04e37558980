//! Merkle trees over files (BEP 52, "pieces root", "piece layers").
//!
//! Owns the arithmetic of hashes: leaves of 16 KiB, padding, layers, roots, proofs. Which hashes are known, asked
//! for or doubted is the engine's.
//!
//! A leaf past the end of a file is 32 zero bytes (not the hash of zeros); a padding node above is the hash of two
//! padding nodes below. The last block of a file is hashed as it is, unpadded.

use crate::hash::sha256;
use sha1::Digest;
use sha2::Sha256;

/// Bytes under one leaf (BEP 52).
pub const LEAF_BYTES: u32 = 16 * 1024;

/// A node of a tree.
pub type Hash = [u8; 32];

/// The leaf over one block of up to [`LEAF_BYTES`].
pub fn leaf(block: &[u8]) -> Hash {
    sha256(block)
}

/// The node above two others.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// The padding node `height` levels above the leaves.
pub fn pad(height: u32) -> Hash {
    (0..height).fold([0; 32], |below, _| node(&below, &below))
}

/// How many levels above the leaves the hashes of pieces lie; `piece_length` is a power of two of at least
/// [`LEAF_BYTES`].
pub fn piece_height(piece_length: u32) -> u32 {
    (piece_length / LEAF_BYTES).max(1).ilog2()
}

/// The root over `nodes`, which lie `height` levels above the leaves and are padded to `width` (itself rounded up
/// to a power of two). No nodes and no width give a padding node.
pub fn root(nodes: &[Hash], height: u32, width: usize) -> Hash {
    let levels = nodes.len().max(width).max(1).next_power_of_two().ilog2();
    let mut padding = pad(height);
    let mut row = nodes.to_vec();
    for _ in 0..levels {
        for at in 0..row.len().div_ceil(2) {
            row[at] = node(&row[2 * at], row.get(2 * at + 1).unwrap_or(&padding));
        }
        row.truncate(row.len().div_ceil(2));
        padding = node(&padding, &padding);
    }
    row.first().copied().unwrap_or(padding)
}

/// The hashes of the pieces over all leaves of a file, the last piece padded.
pub fn piece_layer(leaves: &[Hash], piece_length: u32) -> Vec<Hash> {
    let width = 1 << piece_height(piece_length);
    leaves.chunks(width).map(|piece| root(piece, 0, width)).collect()
}

/// Whether `layer` is what a file of `length` bytes under `expected` has as its piece layer.
pub fn verify_layer(expected: &Hash, layer: &[Hash], length: u64, piece_length: u32) -> bool {
    layer.len() as u64 == length.div_ceil(u64::from(piece_length))
        && root(layer, piece_height(piece_length), 0) == *expected
}

/// The node reached by climbing from `start`, the `index`-th of its level, with one `uncles` a level (BEP 52,
/// "hashes").
pub fn climb(start: &Hash, index: u64, uncles: &[Hash]) -> Hash {
    let step = |(at, below): (u64, Hash), uncle: &Hash| {
        let above = if at & 1 == 0 { node(&below, uncle) } else { node(uncle, &below) };
        (at >> 1, above)
    };
    uncles.iter().fold((index, *start), step).1
}

/// What a v2 piece must hash to: a subtree of `width` leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subtree {
    /// Its root.
    pub hash: Hash,
    /// Its leaves, padding included: a power of two.
    pub width: u32,
}

/// The hashes of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileHashes {
    /// `pieces root`; `None` for an empty file.
    pub root: Option<Hash>,
    /// `piece layers`; empty for a file of at most one piece.
    pub layer: Vec<Hash>,
}

/// Hashes one file as its bytes come, in chunks of any size. Remembers one hash a piece and one a level.
#[derive(Clone, Debug)]
pub struct FileHasher {
    height: u32,
    block: Sha256,
    /// Bytes in `block`; less than [`LEAF_BYTES`].
    block_len: u32,
    /// Full subtrees of the open piece, the largest first; bound: one a level.
    subtrees: Vec<(u32, Hash)>,
    /// Leaves in the open piece.
    leaves: u32,
    layer: Vec<Hash>,
}

impl FileHasher {
    /// For a file of a torrent with this piece length.
    pub fn new(piece_length: u32) -> FileHasher {
        FileHasher {
            height: piece_height(piece_length),
            block: Sha256::new(),
            block_len: 0,
            subtrees: Vec::new(),
            leaves: 0,
            layer: Vec::new(),
        }
    }

    /// The next bytes of the file.
    pub fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = (LEAF_BYTES - self.block_len) as usize;
            let (now, later) = data.split_at(room.min(data.len()));
            self.block.update(now);
            self.block_len += now.len() as u32;
            data = later;
            if self.block_len == LEAF_BYTES {
                self.close_block();
            }
        }
    }

    /// The next leaf, hashed elsewhere. Only between whole blocks.
    pub fn push_leaf(&mut self, leaf: Hash) {
        debug_assert_eq!(self.block_len, 0, "a leaf in the middle of a block");
        let mut here = (0, leaf);
        while let Some((height, left)) = self.subtrees.pop_if(|(height, _)| *height == here.0) {
            here = (height + 1, node(&left, &here.1));
        }
        self.subtrees.push(here);
        self.leaves += 1;
        if self.leaves == 1 << self.height {
            self.layer.push(here.1);
            self.subtrees.clear();
            self.leaves = 0;
        }
    }

    /// The file is over.
    pub fn finish(mut self) -> FileHashes {
        if self.block_len > 0 {
            self.close_block();
        }
        if self.layer.is_empty() {
            let levels = self.leaves.max(1).next_power_of_two().ilog2();
            return FileHashes { root: self.fold(levels), layer: Vec::new() };
        }
        let last = self.fold(self.height);
        self.layer.extend(last);
        let whole = root(&self.layer, self.height, 0);
        let layer = if self.layer.len() > 1 { self.layer } else { Vec::new() };
        FileHashes { root: Some(whole), layer }
    }

    fn close_block(&mut self) {
        self.block_len = 0;
        let leaf = std::mem::take(&mut self.block).finalize().into();
        self.push_leaf(leaf);
    }

    /// The open subtrees joined and padded up to `levels`; `None` if there are none.
    fn fold(&mut self, levels: u32) -> Option<Hash> {
        let (mut height, mut hash) = self.subtrees.pop()?;
        while height < levels {
            hash = match self.subtrees.pop_if(|(left_height, _)| *left_height == height) {
                Some((_, left)) => node(&left, &hash),
                None => node(&hash, &pad(height)),
            };
            height += 1;
        }
        Some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::to_hex;
    use proptest::prelude::*;

    fn hash_all(data: &[u8], piece_length: u32) -> FileHashes {
        let mut hasher = FileHasher::new(piece_length);
        hasher.update(data);
        hasher.finish()
    }

    fn root_hex(data: &[u8], piece_length: u32) -> String {
        to_hex(&hash_all(data, piece_length).root.unwrap())
    }

    /// The same tree with no cleverness: pad the leaves, halve until one is left.
    fn slow_root(data: &[u8]) -> Hash {
        let mut row: Vec<Hash> = data.chunks(LEAF_BYTES as usize).map(leaf).collect();
        row.resize(row.len().next_power_of_two(), [0; 32]);
        while row.len() > 1 {
            row = row.chunks(2).map(|pair| node(&pair[0], &pair[1])).collect();
        }
        row[0]
    }

    #[test]
    fn published_vectors() {
        let zeros = vec![0; 1 << 20];
        let table = [
            (16384, "4fe7b59af6de3b665b67788cc2f99892ab827efae3a467342b3bb4e3bc8e5bfe"),
            (48 << 10, "1cb5a249f6e721060aae623d21d3eca23056bda8c19e4e89f9a086151553713d"),
            (64 << 10, "60aae9c7b428f87e0713e88229e18f0adf12cd7b22a0dd8a92bb2485eb7af242"),
            (1 << 20, "515ea9181744b817744ded9d2e8e9dc6a8450c0b0c52e24b5077f302ffbd9008"),
            (16385, "477e14ff3453ec4ec3855f8753cb07288aade5618a473ccc2ab1208886e460ec"),
        ];
        for (len, expected) in table {
            for piece_length in [16 << 10, 32 << 10, 1 << 20] {
                assert_eq!(root_hex(&zeros[..len], piece_length), expected, "{len} bytes");
            }
        }
        let pads = [
            "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b",
            "db56114e00fdd4c1f85c892bf35ac9a89289aaecb1ebd0a96cde606a748b5d71",
            "c78009fdf07fc56a11f122370658a353aaa542ed63e44c4bc15ff4cd105ab33c",
            "536d98837f2dd165a55d5eeae91485954472d56f246df256bf3cae19352a123c",
            "9efde052aa15429fae05bad4d0b1d7c64da64d03d7a1854a588c2cb8430c0d30",
            "d88ddfeed400a8755596b21942c1497e114c302e6118290f91e6772976041fa1",
        ];
        for (height, expected) in (1..).zip(pads) {
            assert_eq!(to_hex(&pad(height)), expected);
        }
    }

    #[test]
    fn own_vector_with_a_layer() {
        let data: Vec<u8> = (0u32..82020).map(|i| (7 * i + 3) as u8).collect();
        let file = hash_all(&data, 32 << 10);
        let expected = "8fbf8f553df50fbc8284ec0ecdf311c2dae1c904deabc920c228180494e4d29f";
        assert_eq!(to_hex(&file.root.unwrap()), expected);
        let twice = "a8512889459a54c462eb4e2967aa512395bae9eaad3065c69fa80abcde70442f";
        let last = "276f8ee65eb88a87f729034663650e10e952c8d5b2837ca0db2ebc207d95493b";
        assert_eq!(file.layer.iter().map(|h| to_hex(h)).collect::<Vec<_>>(), [twice, twice, last]);
        let root = file.root.unwrap();
        assert!(verify_layer(&root, &file.layer, 82020, 32 << 10));
        assert!(!verify_layer(&root, &file.layer[..2], 82020, 32 << 10));
        assert!(!verify_layer(&root, &file.layer, 131073, 32 << 10));
        let mut forged = file.layer.clone();
        forged[2][0] ^= 1;
        assert!(!verify_layer(&root, &forged, 82020, 32 << 10));
    }

    #[test]
    fn an_empty_file_has_no_root() {
        assert_eq!(hash_all(&[], 16384), FileHashes { root: None, layer: vec![] });
    }

    proptest! {
        #[test]
        fn any_split_any_piece_length(len in 1usize..400_000, shift in 0u32..6, split in 1usize..100_000) {
            let data: Vec<u8> = (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let piece_length = LEAF_BYTES << shift;
            let mut hasher = FileHasher::new(piece_length);
            data.chunks(split).for_each(|chunk| hasher.update(chunk));
            let file = hasher.finish();
            let root_hash = file.root.unwrap();
            prop_assert_eq!(root_hash, slow_root(&data));
            let leaves: Vec<Hash> = data.chunks(LEAF_BYTES as usize).map(leaf).collect();
            if len > piece_length as usize {
                prop_assert_eq!(&file.layer, &piece_layer(&leaves, piece_length));
                prop_assert!(verify_layer(&root_hash, &file.layer, len as u64, piece_length));
            } else {
                prop_assert!(file.layer.is_empty());
            }
        }

        #[test]
        fn a_proof_climbs_to_the_root(count in 1usize..20, pick in any::<proptest::sample::Index>()) {
            let mut row: Vec<Hash> = (0..count).map(|i| leaf(&[i as u8])).collect();
            let index = pick.index(count);
            let (start, whole) = (row[index], root(&row, 0, 0));
            row.resize(count.next_power_of_two(), [0; 32]);
            let mut uncles = Vec::new();
            let mut at = index;
            while row.len() > 1 {
                uncles.push(row[at ^ 1]);
                row = row.chunks(2).map(|pair| node(&pair[0], &pair[1])).collect();
                at /= 2;
            }
            prop_assert_eq!(climb(&start, index as u64, &uncles), whole);
        }
    }
}
