//! The latency sketch against exact percentiles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

use metertrail::{ErrorKind, LatencySketch, Quantile};
use proptest::collection::vec;
use proptest::prelude::*;

const VALUE_MAX: u64 = (1 << 42) - 1;
const COUNT_MAX: i64 = (1 << 40) - 1;

fn sketch_of(values: &[u64]) -> LatencySketch {
    let mut sketch = LatencySketch::new();
    for value in values {
        sketch.record(*value);
    }
    sketch
}

/// The nearest-rank percentile of sorted values, by counting and not by a formula for the rank.
fn exact(sorted: &[u64], permille: u16) -> u64 {
    let enough = |at: &usize| (at + 1) * 1_000 >= usize::from(permille) * sorted.len();
    sorted[(0..sorted.len()).find(enough).unwrap()]
}

fn assert_within_bound(mut values: Vec<u64>, permilles: impl Iterator<Item = u16>) {
    let sketch = sketch_of(&values);
    assert_eq!(sketch.count(), values.len() as u64);
    values.sort_unstable();
    for permille in permilles {
        let estimate = sketch.quantile(Quantile::from_permille(permille).unwrap()).unwrap();
        let exact = exact(&values, permille);
        assert!(
            estimate.abs_diff(exact) * 128 <= exact,
            "the quantile {permille}/1000 is {exact} and was estimated as {estimate}"
        );
        assert!(exact >= 128 || estimate == exact, "below 128 µs quantiles are exact: {exact}, {estimate}");
    }
}

/// Values spread evenly over the octaves.
fn any_value() -> impl Strategy<Value = u64> {
    (0_u32..42, any::<u64>()).prop_map(|(octave, noise)| (1 << octave) + noise % (1 << octave))
}

fn any_values(max: usize) -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![
        vec(any_value(), 1..max),
        vec(0_u64..300, 1..max),
        vec(900_000_u64..1_100_000, 1..max),
        // Two humps and a long tail.
        vec(prop_oneof![8 => 1_000_u64..2_000, 2 => 400_000_u64..500_000, 1 => any_value()], 1..max),
        (any_value(), 1..max).prop_map(|(value, n)| vec![value; n]),
    ]
}

#[test]
fn bins_are_continuous_and_monotone() {
    let mut last = LatencySketch::bin(0);
    assert_eq!(last, 0);
    for value in 1..1 << 18 {
        let bin = LatencySketch::bin(value);
        assert!(
            bin == last || bin == last + 1,
            "from {} to {value} the bin goes from {last} to {bin}",
            value - 1
        );
        last = bin;
    }
    // Above that: every bin begins where the arithmetic says, and the value before it lies in the bin before.
    for octave in 7..42 {
        for step in 0..64_u64 {
            let low = (64 + step) << (octave - 6);
            let bin = LatencySketch::bin(low);
            assert_eq!(u64::from(bin), (octave - 6) * 64 + 64 + step);
            assert_eq!(LatencySketch::bin(low - 1), bin - 1);
        }
    }
}

#[test]
fn the_first_and_the_last_bin_are_in_range() {
    assert_eq!(LatencySketch::bin(127), 127);
    assert_eq!(LatencySketch::bin(128), 128);
    assert_eq!(LatencySketch::bin(VALUE_MAX), 2_367);
    assert_eq!(LatencySketch::bin(VALUE_MAX + 1), 2_367);
    assert_eq!(LatencySketch::bin(u64::MAX), 2_367);
    assert_eq!(LatencySketch::BINS, 2_368);
    assert_eq!(LatencySketch::VALUE_MAX_US, VALUE_MAX);
}

#[test]
fn the_estimate_of_every_bin_is_within_the_bound_at_both_edges() {
    for octave in 6..42_u32 {
        for step in 0..64_u64 {
            let (low, width) = ((64 + step) << (octave - 6), 1_u64 << (octave - 6));
            for value in [low, low + width / 2, low + width - 1] {
                let estimate = sketch_of(&[value]).quantile(Quantile::P50).unwrap();
                assert!(estimate.abs_diff(value) * 128 <= value, "{value} was estimated as {estimate}");
            }
        }
    }
    let one_per_cent = 0.01;
    assert!(LatencySketch::RELATIVE_ERROR_MAX < one_per_cent);
    assert!((LatencySketch::RELATIVE_ERROR_MAX * 128.0 - 1.0).abs() < f64::EPSILON);
}

#[test]
fn quantiles_of_a_large_skewed_sample_are_within_the_bound() {
    // Latencies of a service: about exponential around 40 ms, from a fixed linear congruential generator.
    let mut state = 7_u64;
    let values = (0..50_000).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = (state >> 11) as f64 / (1_u64 << 53) as f64;
        (-(1.0 - uniform).ln() * 40_000.0) as u64
    });
    assert_within_bound(values.collect(), [1, 10, 250, 500, 900, 950, 990, 999, 1_000].into_iter());
}

#[test]
fn ranks_are_nearest_ranks() {
    let hundred: Vec<u64> = (1..=100).collect();
    let sketch = sketch_of(&hundred);
    assert_eq!(sketch.quantile(Quantile::P50), Some(50));
    assert_eq!(sketch.quantile(Quantile::P95), Some(95));
    assert_eq!(sketch.quantile(Quantile::P99), Some(99));
    assert_eq!(sketch.quantile(Quantile::MAX), Some(100));
    assert_eq!(sketch.quantile(Quantile::from_permille(1).unwrap()), Some(1));
    assert_eq!(sketch.quantile(Quantile::from_permille(991).unwrap()), Some(100));
    assert_eq!(sketch_of(&[5]).quantile(Quantile::from_permille(1).unwrap()), Some(5));
    assert_eq!(sketch_of(&[0, 0, 1]).quantile(Quantile::P50), Some(0));
    assert_eq!(LatencySketch::new().quantile(Quantile::P50), None);
}

#[test]
fn a_quantile_outside_of_its_range_is_refused() {
    for permille in [0, 1_001, u16::MAX] {
        let error = Quantile::from_permille(permille).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some("quantile")));
    }
}

#[test]
fn an_empty_sketch_is_neutral() {
    let empty = LatencySketch::new();
    assert!(empty.is_empty() && empty.count() == 0 && empty.to_packed().is_empty());
    assert_eq!(LatencySketch::from_packed(&[]).unwrap(), empty);
    let full = sketch_of(&[1, 1_000, 1_000_000]);
    assert!(!full.is_empty());
    let (mut left, mut right) = (full.clone(), empty.clone());
    left.merge(&empty);
    right.merge(&full);
    assert_eq!((&left, &right), (&full, &full));
}

#[test]
fn malformed_elements_are_errors_of_the_store() {
    let bin = |bin: i64, count: i64| bin << 40 | count;
    for element in
        [-1, i64::MIN, i64::MAX, 0, bin(5, 0), bin(2_368, 1), bin(65_536, 1), bin(65_537, 1), -bin(5, 1)]
    {
        for packed in [vec![element], vec![bin(3, 1), element], vec![element, bin(3, 1)]] {
            let error = LatencySketch::from_packed(&packed).expect_err(&format!("{element} must be refused"));
            assert_eq!(error.kind(), ErrorKind::Store);
            assert!(error.to_string().contains(&element.to_string()));
        }
    }
    let last = LatencySketch::from_packed(&[bin(2_367, COUNT_MAX)]).unwrap();
    assert_eq!(last.count(), COUNT_MAX as u64);
}

#[test]
fn a_count_too_large_for_one_element_is_split() {
    let mut sketch = LatencySketch::from_packed(&[7 << 40 | COUNT_MAX]).unwrap();
    assert_eq!(sketch.to_packed(), [7 << 40 | COUNT_MAX]);
    sketch.record(7);
    let packed = sketch.to_packed();
    assert_eq!(packed.len(), 2);
    assert_eq!(packed.iter().map(|element| element & COUNT_MAX).sum::<i64>(), COUNT_MAX + 1);
    assert!(packed.is_sorted());
    assert_eq!(LatencySketch::from_packed(&packed).unwrap(), sketch);
    assert_eq!(LatencySketch::from_packed(&packed).unwrap().count(), 1 << 40);
}

#[test]
fn counts_stop_at_the_greatest_number() {
    let mut sketch = sketch_of(&[1, 2, 2]);
    for _ in 0..70 {
        let copy = sketch.clone();
        sketch.merge(&copy);
    }
    assert_eq!(sketch.count(), u64::MAX);
    sketch.record(1);
    assert_eq!(sketch.count(), u64::MAX);
    assert_eq!(sketch.quantile(Quantile::P50), Some(1));
    assert_eq!(sketch.quantile(Quantile::MAX), Some(2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_quantile_is_within_the_bound(values in any_values(300)) {
        assert_within_bound(values, (1..=1_000).step_by(7).chain([500, 950, 990, 999, 1_000]));
    }

    #[test]
    fn merging_is_recording_everything_in_one(parts in vec(any_values(80), 1..6)) {
        let whole = sketch_of(&parts.concat());
        let sketches: Vec<_> = parts.iter().map(|part| sketch_of(part)).collect();
        let mut forward = LatencySketch::new();
        for sketch in &sketches {
            forward.merge(sketch);
        }
        let mut backward = LatencySketch::new();
        for sketch in sketches.iter().rev() {
            backward.merge(sketch);
        }
        prop_assert_eq!(&forward, &whole);
        prop_assert_eq!(&backward, &whole);
        prop_assert_eq!(forward.count(), parts.concat().len() as u64);
    }

    #[test]
    fn the_packed_form_has_each_bin_once_with_its_count(values in any_values(200)) {
        let mut counts = std::collections::BTreeMap::new();
        for value in &values {
            *counts.entry(i64::from(LatencySketch::bin(*value))).or_insert(0_i64) += 1;
        }
        let expected: Vec<i64> = counts.into_iter().map(|(bin, count)| bin << 40 | count).collect();
        prop_assert_eq!(sketch_of(&values).to_packed(), expected);
    }

    #[test]
    fn the_packed_form_reads_back_in_any_order_and_in_parts(
        (values, shuffled) in any_values(200).prop_flat_map(|values| (Just(values.clone()), Just(values).prop_shuffle())),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = sketch_of(&values);
        prop_assert_eq!(&LatencySketch::from_packed(&whole.to_packed()).unwrap(), &whole);
        // What a store does that appends and compacts later: one element an event, or two arrays one after the other.
        let single: Vec<i64> =
            shuffled.iter().map(|value| i64::from(LatencySketch::bin(*value)) << 40 | 1).collect();
        prop_assert_eq!(&LatencySketch::from_packed(&single).unwrap(), &whole);
        let (left, right) = shuffled.split_at(cut.index(shuffled.len()));
        let appended = [sketch_of(right).to_packed(), sketch_of(left).to_packed()].concat();
        prop_assert_eq!(&LatencySketch::from_packed(&appended).unwrap(), &whole);
    }

    #[test]
    fn any_array_is_read_or_refused(
        packed in vec(prop_oneof![
            any::<i64>(),
            (0_i64..2_400, 0_i64..3).prop_map(|(bin, count)| bin << 40 | count),
            (0_i64..2_368, 1..=COUNT_MAX).prop_map(|(bin, count)| bin << 40 | count),
        ], 0..4),
    ) {
        let well_formed = packed.iter().all(|element| (0..2_368).contains(&(element >> 40)) && element & COUNT_MAX != 0);
        match LatencySketch::from_packed(&packed) {
            Ok(sketch) => {
                prop_assert!(well_formed);
                let count = packed.iter().map(|element| (element & COUNT_MAX) as u64).sum::<u64>();
                prop_assert_eq!(sketch.count(), count);
            }
            Err(error) => {
                prop_assert!(!well_formed);
                prop_assert_eq!(error.kind(), ErrorKind::Store);
            }
        }
    }
}
