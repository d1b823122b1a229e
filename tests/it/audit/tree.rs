//! The trees, against RFC 6962's own numbers and another implementation.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use metertrail::audit::Hash;
use metertrail::audit::tree::{self, Frontier};
use sha2::Sha256;

/// The leaves and roots that implementations of Certificate Transparency are tested with.
#[test]
fn roots_are_those_of_certificate_transparency() {
    let leaves =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let hash = |hex: &str| {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        Hash::leaf(&bytes)
    };
    let leaves: Vec<Hash> = leaves.iter().map(|hex| hash(hex)).collect();
    for (size, root) in (1..).zip(roots) {
        assert_eq!(tree::root(&leaves[..size]).to_string(), root);
    }
}

/// A tree of both implementations with so many leaves.
fn trees(size: u32) -> (Vec<Hash>, MemoryBackedTree<Sha256, Vec<u8>>) {
    let mut theirs = MemoryBackedTree::new();
    let leaves = (0..size).map(|n| {
        theirs.push(n.to_be_bytes().to_vec());
        Hash::leaf(&n.to_be_bytes())
    });
    (leaves.collect(), theirs)
}

fn concatenated(proof: &[Hash]) -> Vec<u8> {
    proof.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

#[test]
fn inclusion_proofs_are_those_of_another_implementation() {
    for size in (1..70).chain([255, 256, 257, 511, 513, 1000]) {
        let (leaves, theirs) = trees(size);
        let root = tree::root(&leaves);
        assert_eq!(root.as_bytes()[..], theirs.root().as_bytes()[..], "size {size}");
        for index in (0..size).step_by(if size < 70 { 1 } else { 37 }) {
            let ours = tree::inclusion_proof(&leaves, index.into()).unwrap();
            assert_eq!(
                concatenated(&ours),
                theirs.prove_inclusion(index as usize).as_bytes(),
                "{index} of {size}"
            );
            let leaf = leaves[index as usize];
            assert!(tree::verify_inclusion(leaf, index.into(), size.into(), &ours, root));
            let proof = InclusionProof::try_from_bytes(concatenated(&ours)).unwrap();
            theirs.root().verify_inclusion(&index.to_be_bytes().to_vec(), index.into(), &proof).unwrap();
            // Nothing else is proven by it.
            assert!(!tree::verify_inclusion(Hash::leaf(b"x"), index.into(), size.into(), &ours, root));
            assert!(!tree::verify_inclusion(leaf, u64::from(index) + 1, size.into(), &ours, root));
            assert!(!tree::verify_inclusion(leaf, index.into(), size.into(), &ours, Hash::leaf(b"x")));
            for at in 0..ours.len() {
                let mut bad = ours.clone();
                bad[at] = Hash::leaf(b"x");
                assert!(!tree::verify_inclusion(leaf, index.into(), size.into(), &bad, root));
                assert!(!tree::verify_inclusion(leaf, index.into(), size.into(), &ours[..at], root));
            }
        }
    }
    assert_eq!(tree::inclusion_proof(&trees(5).0, 5), None);
}

#[test]
fn consistency_proofs_are_those_of_another_implementation() {
    for size in (2_u32..40).chain([255, 256, 257, 600]) {
        let (leaves, theirs) = trees(size);
        let root = tree::root(&leaves);
        for old_size in (1..size).step_by(if size < 40 { 1 } else { 31 }) {
            let ours = tree::consistency_proof(&leaves, old_size.into()).unwrap();
            let expected = theirs.prove_consistency((size - old_size) as usize);
            assert_eq!(concatenated(&ours), expected.as_bytes(), "{old_size} of {size}");
            let old_root = tree::root(&leaves[..old_size as usize]);
            let (old, new) = ((u64::from(old_size), old_root), (u64::from(size), root));
            assert!(tree::verify_consistency(old, new, &ours));
            let old_theirs = RootHash::<Sha256>::new((*old_root.as_bytes()).into(), old_size.into());
            let proof = ConsistencyProof::try_from_bytes(concatenated(&ours)).unwrap();
            theirs.root().verify_consistency(&old_theirs, &proof).unwrap();
            assert!(!tree::verify_consistency((old.0, Hash::leaf(b"x")), new, &ours));
            assert!(!tree::verify_consistency(old, (new.0, Hash::leaf(b"x")), &ours));
            for at in 0..ours.len() {
                let mut bad = ours.clone();
                bad[at] = Hash::leaf(b"x");
                assert!(!tree::verify_consistency(old, new, &bad));
                assert!(!tree::verify_consistency(old, new, &ours[..at]));
            }
        }
    }
    let (leaves, _) = trees(5);
    let root = tree::root(&leaves);
    assert!(tree::verify_consistency((5, root), (5, root), &[]));
    assert!(tree::verify_consistency((0, Hash::of(b"")), (5, root), &[]));
    assert!(!tree::verify_consistency((6, root), (5, root), &[]));
    assert_eq!(tree::consistency_proof(&leaves, 0), None);
}

#[test]
fn a_right_edge_is_written_and_read() {
    let mut frontier = Frontier::default();
    for n in 0..300_u32 {
        let bytes = frontier.to_bytes();
        assert_eq!(Frontier::from_bytes(n.into(), &bytes).unwrap(), frontier);
        assert!(
            Frontier::from_bytes(u64::from(n) + 1, &bytes).is_err() || n.count_ones() == (n + 1).count_ones()
        );
        frontier.push(Hash::leaf(&n.to_be_bytes()), |_| {});
    }
    assert!(Frontier::from_bytes(1, &[0; 33]).is_err());
}
