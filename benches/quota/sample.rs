//! Short samples of contenders who take turns.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Does so many decisions.
pub(crate) type Batch<'a> = Box<dyn FnMut(u64) + 'a>;

/// Who is measured: what makes a thread's share of the work, given the thread's number.
pub(crate) struct Contender<'a> {
    pub(crate) thread: Box<dyn Fn(usize) -> Batch<'a> + Sync + 'a>,
}

/// How long and how often.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: u32,
    pub(crate) turn: Duration,
}

impl Effort {
    pub(crate) fn new(quick: bool) -> Self {
        if quick {
            Self { rounds: 1, turn: Duration::from_millis(2) }
        } else {
            Self { rounds: 9, turn: Duration::from_millis(20) }
        }
    }
}

/// A sample is about so long: well within a time slice of a busy machine.
const SAMPLE: Duration = Duration::from_micros(200);

/// The median picoseconds of one decision, for each contender, with so many threads at once.
pub(crate) fn medians(contenders: &[Contender<'_>], threads: usize, effort: Effort) -> Vec<u64> {
    let mut samples: Vec<Vec<u64>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..effort.rounds {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            samples.extend(turn(contender, threads, effort.turn));
        }
    }
    samples.into_iter().map(median).collect()
}

pub(crate) fn median(mut samples: Vec<u64>) -> u64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or(0)
}

fn turn(contender: &Contender<'_>, threads: usize, time: Duration) -> Vec<u64> {
    let start = Barrier::new(threads);
    let done: Vec<Done> = (0..threads).map(|_| Done::default()).collect();
    let run = |thread| {
        let mut batch = (contender.thread)(thread);
        let size = calibrated(&mut batch);
        let others = || -> Vec<u64> {
            let others = done.iter().enumerate().filter(|(other, _)| *other != thread);
            others.map(|(_, done)| done.0.load(Ordering::Relaxed)).collect()
        };
        start.wait();
        let began = Instant::now();
        let mut samples = Vec::new();
        while began.elapsed() < time {
            let before = others();
            let sample = one(&mut batch, size);
            done[thread].0.fetch_add(1, Ordering::Relaxed);
            // On a busy machine another thread, or this one, may have been off its core: then it says nothing about
            // contention.
            if before.iter().zip(others()).all(|(before, after)| (1..=3).contains(&(after - before))) {
                samples.push(sample);
            }
        }
        samples
    };
    let run = &run;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

/// The samples that a thread has done, on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Done(AtomicU64);

/// How many decisions make a sample.
fn calibrated(batch: &mut Batch<'_>) -> u64 {
    let mut size = 1;
    loop {
        let began = Instant::now();
        batch(size);
        if began.elapsed() >= SAMPLE / 2 {
            return size;
        }
        size *= 2;
    }
}

fn one(batch: &mut Batch<'_>, size: u64) -> u64 {
    let began = Instant::now();
    batch(size);
    let picoseconds = began.elapsed().as_nanos() * 1_000 / u128::from(size);
    u64::try_from(picoseconds).unwrap_or(u64::MAX)
}

/// A quotient with three decimal places.
pub(crate) fn ratio(part: u64, whole: u64) -> String {
    let thousandths = part.saturating_mul(1_000) / whole.max(1);
    format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000)
}

/// Nanoseconds with one decimal place.
pub(crate) fn nanoseconds(picoseconds: u64) -> String {
    format!("{}.{}", picoseconds / 1_000, picoseconds % 1_000 / 100)
}
