//! The append-only Merkle tree of RFC 6962: roots, inclusion and consistency proofs.
//!
//! A tree is kept as the hashes of its complete subtrees of 1, 256, 65,536, … leaves, the levels 0, 8, 16, …, as
//! tiled logs do (<https://c2sp.org/tlog-tiles>). A proof reads one tile a level, whatever the tree's size.

use std::collections::HashMap;
use std::ops::Range;

use crate::audit::Hash;
use crate::audit::canonical::malformed;
use crate::{Error, ErrorKind, Result};

/// Every so many levels of a tree are kept.
pub(crate) const TILE_LEVELS: u8 = 8;
const TILE_WIDTH: u64 = 256;
const LEVELS: u8 = 64;

/// The root of a tree of these leaf hashes.
///
/// ```
/// use metertrail::audit::{Hash, tree};
///
/// let leaves = [Hash::leaf(b"a"), Hash::leaf(b"b"), Hash::leaf(b"c")];
/// let left = Hash::node(leaves[0], leaves[1]);
/// assert_eq!(tree::root(&leaves), Hash::node(left, leaves[2]));
/// ```
pub fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.push(*leaf, |_| {});
    }
    frontier.root()
}

/// The proof that the leaf of an index is in the tree of these leaf hashes; `None` if there is no such leaf.
pub fn inclusion_proof(leaves: &[Hash], index: u64) -> Option<Vec<Hash>> {
    let size = u64::try_from(leaves.len()).ok()?;
    let ranges = inclusion_ranges(index, size)?;
    ranges.into_iter().map(|range| root_of(leaves, range)).collect()
}

/// The proof that the tree of the first `old_size` of these leaf hashes is a beginning of the tree of all; `None` if there
/// are fewer leaves, or the old tree is empty.
pub fn consistency_proof(leaves: &[Hash], old_size: u64) -> Option<Vec<Hash>> {
    let size = u64::try_from(leaves.len()).ok()?;
    let ranges = consistency_ranges(old_size, size)?;
    ranges.into_iter().map(|range| root_of(leaves, range)).collect()
}

fn root_of(leaves: &[Hash], range: Range<u64>) -> Option<Hash> {
    let (from, to) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
    leaves.get(from..to).map(root)
}

/// Whether a proof shows that a leaf has this index in the tree of this size and root (RFC 9162, section 2.1.3.2).
pub fn verify_inclusion(leaf: Hash, index: u64, size: u64, proof: &[Hash], root: Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = Hash::node(*sibling, hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = Hash::node(hash, *sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == root
}

/// Whether a proof shows that the tree of the old size and root is a beginning of the new one (RFC 9162, section 2.1.4.2).
pub fn verify_consistency(old: (u64, Hash), new: (u64, Hash), proof: &[Hash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == 0 || old_size >= new_size {
        // Anything begins with nothing, and a tree with itself.
        let same = old_size == new_size && old_root == new_root;
        return proof.is_empty() && (same || (old_size == 0 && old_root == Hash::of(b"")));
    }
    let whole = old_size.is_power_of_two().then_some(old_root);
    let mut hashes = whole.into_iter().chain(proof.iter().copied());
    let Some(first) = hashes.next() else {
        return false;
    };
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (first, first);
    for hash in hashes {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = Hash::node(hash, old_hash);
            new_hash = Hash::node(hash, new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = Hash::node(new_hash, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == old_root && new_hash == new_root
}

/// A node of a tree: the root of the complete subtree of 2^level leaves that begins at leaf position × 2^level.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TreeNode {
    /// 0 for a leaf; kept nodes have a multiple of 8.
    pub level: u8,
    /// How many nodes of this level are before it.
    pub position: u64,
    /// Its hash.
    pub hash: Hash,
}

/// The right edge of a tree: its size and the roots of its largest complete subtrees, from left to right. It is all that
/// appending takes, and that the root follows from.
///
/// ```
/// use metertrail::audit::{Hash, tree::{self, Frontier}};
///
/// let leaves: Vec<Hash> = (0..300_u32).map(|n| Hash::leaf(&n.to_be_bytes())).collect();
/// let mut frontier = Frontier::default();
/// let mut kept = 0;
/// for leaf in &leaves {
///     frontier.push(*leaf, |_node| kept += 1);
/// }
/// assert_eq!((frontier.size(), frontier.root()), (300, tree::root(&leaves)));
/// assert_eq!(kept, 301); // every leaf, and the root of the first 256
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Frontier {
    size: u64,
    hashes: Vec<Hash>,
}

impl Frontier {
    /// Appends a leaf. Every node that is to be kept and now complete is given to `keep`, the leaf among them.
    pub fn push(&mut self, leaf: Hash, mut keep: impl FnMut(TreeNode)) {
        keep(TreeNode { level: 0, position: self.size, hash: leaf });
        let (mut hash, mut level, mut position) = (leaf, 0, self.size);
        while position & 1 == 1
            && let Some(left) = self.hashes.pop()
        {
            hash = Hash::node(left, hash);
            level += 1;
            position >>= 1;
            if level % TILE_LEVELS == 0 {
                keep(TreeNode { level, position, hash });
            }
        }
        self.hashes.push(hash);
        self.size += 1;
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root.
    pub fn root(&self) -> Hash {
        let mut from_right = self.hashes.iter().rev();
        let Some(last) = from_right.next() else {
            return Hash::of(b"");
        };
        from_right.fold(*last, |right, left| Hash::node(*left, right))
    }

    /// The proof that a leaf appended to this tree is the last one of the tree that it then is.
    pub fn last_leaf_proof(&self) -> Vec<Hash> {
        self.hashes.iter().rev().copied().collect()
    }

    /// The hashes one after the other: their number follows from the size.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote for a tree of this size.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store) if there are more or fewer hashes than the size has.
    pub fn from_bytes(size: u64, bytes: &[u8]) -> Result<Self> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        let expected = usize::try_from(size.count_ones()).map_err(|_| malformed())?;
        if !rest.is_empty() || hashes.len() != expected {
            return Err(malformed());
        }
        Ok(Self { size, hashes: hashes.iter().map(|bytes| Hash::from_bytes(*bytes)).collect() })
    }

    /// As [`from_bytes`](Self::from_bytes), and for bytes that are no right edge of such a tree one that has another root.
    pub(crate) fn from_bytes_or_damaged(size: u64, bytes: &[u8]) -> Self {
        Self::from_bytes(size, bytes).unwrap_or(Self { size, hashes: vec![Hash::ZERO] })
    }

    /// The complete subtrees with their levels and positions.
    fn nodes(&self) -> impl Iterator<Item = TreeNode> {
        let mut start = 0_u64;
        let levels = (0..LEVELS).rev().filter(|level| self.size >> level & 1 == 1);
        levels.zip(&self.hashes).map(move |(level, hash)| {
            let node = TreeNode { level, position: start >> level, hash: *hash };
            start += 1_u64 << level;
            node
        })
    }
}

/// The runs of kept nodes from which, with the frontier, every proof about a leaf can be made.
pub(crate) fn tiles_around(index: u64, size: u64) -> Vec<(u8, Range<u64>)> {
    let levels = (0..LEVELS).step_by(usize::from(TILE_LEVELS));
    let tiles = levels.map_while(|level| {
        let nodes = size >> level;
        let first = (index >> level) / TILE_WIDTH * TILE_WIDTH;
        (nodes > 0).then_some((level, first..nodes.min(first + TILE_WIDTH)))
    });
    tiles.filter(|(_, range)| !range.is_empty()).collect()
}

/// Some nodes of a tree, from which proofs are put together.
#[derive(Debug)]
pub(crate) struct Tiles {
    size: u64,
    known: HashMap<(u8, u64), Hash>,
}

impl Tiles {
    pub(crate) fn new(frontier: &Frontier, nodes: impl IntoIterator<Item = TreeNode>) -> Self {
        let all = frontier.nodes().chain(nodes);
        let known = all.map(|node| ((node.level, node.position), node.hash)).collect();
        Self { size: frontier.size(), known }
    }

    /// The proof that a leaf is in the tree.
    pub(crate) fn inclusion(&self, index: u64) -> Result<Vec<Hash>> {
        let ranges = inclusion_ranges(index, self.size).ok_or_else(|| missing(index))?;
        ranges.into_iter().map(|range| self.range(range)).collect()
    }

    /// The proof that the tree of this size is a beginning of the tree.
    pub(crate) fn consistency(&self, old_size: u64) -> Result<Vec<Hash>> {
        let ranges = consistency_ranges(old_size, self.size).ok_or_else(|| missing(old_size))?;
        ranges.into_iter().map(|range| self.range(range)).collect()
    }

    /// The root of a range that begins where a complete subtree of its size could begin.
    fn range(&self, range: Range<u64>) -> Result<Hash> {
        let mut parts = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let level = (range.end - start).ilog2();
            let level = u8::try_from(level).map_err(|_| malformed())?;
            parts.push(self.subtree(level, start >> level)?);
            start += 1_u64 << level;
        }
        let mut from_right = parts.into_iter().rev();
        let last = from_right.next().ok_or_else(malformed)?;
        Ok(from_right.fold(last, |right, left| Hash::node(left, right)))
    }

    fn subtree(&self, level: u8, position: u64) -> Result<Hash> {
        if let Some(hash) = self.known.get(&(level, position)) {
            return Ok(*hash);
        }
        if level.is_multiple_of(TILE_LEVELS) {
            return Err(missing(position));
        }
        let (left, right) =
            (self.subtree(level - 1, position * 2)?, self.subtree(level - 1, position * 2 + 1)?);
        Ok(Hash::node(left, right))
    }
}

fn missing(position: u64) -> Error {
    Error::new(ErrorKind::Store, format!("a node of the audit tree is missing near {position}"))
}

/// The ranges whose roots are the path of a leaf, from the leaf upwards (RFC 6962, section 2.1.1).
fn inclusion_ranges(index: u64, size: u64) -> Option<Vec<Range<u64>>> {
    if index >= size {
        return None;
    }
    let mut ranges = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + largest_power_below(end - start);
        if index < middle {
            ranges.push(middle..end);
            end = middle;
        } else {
            ranges.push(start..middle);
            start = middle;
        }
    }
    ranges.reverse();
    Some(ranges)
}

/// The ranges whose roots prove consistency (RFC 6962, section 2.1.2).
fn consistency_ranges(old_size: u64, size: u64) -> Option<Vec<Range<u64>>> {
    if old_size == 0 || old_size > size {
        return None;
    }
    let mut ranges = Vec::new();
    let (mut start, mut end, mut is_left_edge) = (0, size, true);
    while old_size != end {
        let middle = start + largest_power_below(end - start);
        if old_size <= middle {
            ranges.push(middle..end);
            end = middle;
        } else {
            ranges.push(start..middle);
            start = middle;
            is_left_edge = false;
        }
    }
    if !is_left_edge {
        ranges.push(start..end);
    }
    ranges.reverse();
    Some(ranges)
}

/// The largest power of two below a number of at least two.
fn largest_power_below(number: u64) -> u64 {
    1 << (number - 1).ilog2()
}
