//! Models of the lock-free allowance: every interleaving of a few operations, checked by loom.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

/// The source under test takes its atomics from here: loom's, which try every order.
mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[path = "../src/quota/allowance.rs"]
mod allowance;

use allowance::{Allowance, Epoch};
use loom::sync::Arc;
use loom::thread;

/// An allowance with units in its first epoch.
fn with_units(units: u64) -> (Arc<Allowance>, Epoch) {
    let allowance = Arc::new(Allowance::new());
    let (epoch, _) = allowance.look();
    assert!(allowance.put(epoch, units));
    (allowance, epoch)
}

#[test]
fn spenders_never_take_more_than_there_is() {
    loom::model(|| {
        let (allowance, _) = with_units(5);
        let spender = |amount| {
            let allowance = Arc::clone(&allowance);
            thread::spawn(move || allowance.take(amount).map_or(0, |_| amount))
        };
        let (a, b) = (spender(3), spender(4));
        let taken = a.join().unwrap() + b.join().unwrap();
        let (_, left) = allowance.look();
        assert_eq!(taken + left, 5);
        assert!(taken == 3 || taken == 4, "one of the two is served");
    });
}

#[test]
fn a_refill_and_a_spender_lose_nothing() {
    loom::model(|| {
        let (allowance, epoch) = with_units(1);
        let refill = {
            let allowance = Arc::clone(&allowance);
            thread::spawn(move || assert!(allowance.put(epoch, 2)))
        };
        let taken = allowance.take(2).map_or(0, |_| 2);
        refill.join().unwrap();
        assert_eq!(taken + allowance.look().1, 3);
    });
}

#[test]
fn units_never_cross_a_roll_over() {
    loom::model(|| {
        let (allowance, old) = with_units(4);
        let holder = {
            let allowance = Arc::clone(&allowance);
            // Holds and gives back, as a dropped hold does, while the window ends.
            thread::spawn(move || {
                if let Some(epoch) = allowance.take(3) {
                    let came_back = allowance.put(epoch, 3);
                    assert!(epoch == old || !came_back);
                }
            })
        };
        let (new, left) = allowance.roll();
        assert!(left == 4 || left == 1, "all of it, or what the holder left");
        assert_ne!(new, old);
        holder.join().unwrap();
        assert_eq!(allowance.look(), (new, 0), "the new window begins with nothing, whoever gives back");
    });
}

#[test]
fn a_return_of_idle_units_and_a_spender_share_them() {
    loom::model(|| {
        let (allowance, epoch) = with_units(4);
        let returned = {
            let allowance = Arc::clone(&allowance);
            thread::spawn(move || allowance.take_up_to(epoch, u64::MAX))
        };
        let taken = allowance.take(3).map_or(0, |_| 3);
        let returned = returned.join().unwrap();
        assert_eq!(taken + returned + allowance.look().1, 4);
        assert!(taken == 0 || returned <= 1);
    });
}

#[test]
fn three_slots_all_or_nothing_put_back_what_they_took() {
    loom::model(|| {
        let (first, _) = with_units(2);
        let (second, _) = with_units(1);
        let take_both = {
            let (first, second) = (Arc::clone(&first), Arc::clone(&second));
            move || {
                let Some(epoch) = first.take(1) else { return 0 };
                if second.take(1).is_some() {
                    return 1;
                }
                assert!(first.put(epoch, 1));
                0
            }
        };
        let other = thread::spawn(take_both.clone());
        let admitted = take_both() + other.join().unwrap();
        assert_eq!(admitted, 1, "the second slot has one unit");
        assert_eq!(first.look().1, 1, "and the loser put its unit of the first back");
    });
}
