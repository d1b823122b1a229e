//! Limits: slices are leased exactly by the rule, usage counts, settlements move units in one step.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use tokio::task::JoinSet;

use super::sample::{Dice, again, append_new, at, changed, cost, event, must, roll_up_all, tenant, with_key};
use crate::TenantId;
use crate::quota::{
    AcquireRequest, Granted, HolderId, LimitKey, Quota, Returned, Settlement, SliceRequest, Standing, Window,
};
use crate::store::{Appended, Store};
use crate::time::Zone;
use crate::usage::{EventType, Measures, Outcome, TokenUsage, UsageEvent};

/// When everything happens unless a case says otherwise.
pub(super) fn noon() -> DateTime<Utc> {
    at("2026-03-01T12:00:30Z")
}

pub(super) fn key(quota: Quota, window: Window) -> LimitKey {
    LimitKey { quota, window, range: window.range_at(noon(), Zone::UTC) }
}

fn tokens() -> LimitKey {
    key(Quota::Tokens, Window::Day)
}

/// A request for all that is needed at once.
fn slice(key: &LimitKey, allowed: u64, known_granted: u64, need: u64, want: u64) -> SliceRequest {
    SliceRequest { key: key.clone(), allowed, known_granted, need, want, unrecorded: 0, binding: true }
}

fn request(tenant_id: &TenantId, holder: HolderId, slices: Vec<SliceRequest>) -> AcquireRequest {
    AcquireRequest {
        tenant_id: tenant_id.clone(),
        holder,
        now: noon(),
        expires_at: noon() + TimeDelta::seconds(30),
        reclaim: false,
        all_or_none: false,
        slices,
    }
}

/// Acquires although others do; one answer for each slice.
async fn acquire(store: &Arc<dyn Store>, request: &AcquireRequest) -> Vec<Granted> {
    let mut tries = 0;
    loop {
        match store.acquire(request).await {
            Err(error) if error.is_transient() && tries < 200 => tries += 1,
            result => {
                let answers = must("acquire", result);
                assert_eq!(answers.len(), request.slices.len(), "one answer for each slice");
                return answers;
            }
        }
    }
}

/// Acquires an amount of one limit, all or nothing wanted beyond it.
pub(super) async fn take(
    store: &Arc<dyn Store>,
    own: &TenantId,
    holder: HolderId,
    key: &LimitKey,
    allowed: u64,
    known_granted: u64,
    need: u64,
) -> Granted {
    let slices = vec![slice(key, allowed, known_granted, need, need)];
    acquire(store, &request(own, holder, slices)).await.remove(0)
}

async fn standing(store: &Arc<dyn Store>, own: &TenantId, holder: HolderId, key: &LimitKey) -> Standing {
    standing_at(store, own, holder, key, noon()).await
}

pub(super) async fn standing_at(
    store: &Arc<dyn Store>,
    own: &TenantId,
    holder: HolderId,
    key: &LimitKey,
    now: DateTime<Utc>,
) -> Standing {
    let keys = std::slice::from_ref(key);
    let mut standings = must("standing", store.standing(own, holder, keys, now).await);
    assert_eq!(standings.len(), 1, "one answer for each key");
    standings.remove(0)
}

pub(super) async fn give_back(
    store: &Arc<dyn Store>,
    own: &TenantId,
    holder: HolderId,
    key: &LimitKey,
    total: u64,
) {
    let returned = Returned { tenant_id: own.clone(), holder, key: key.clone(), total };
    must("give_back", store.give_back(&[returned]).await);
}

/// An event at noon that used so many tokens.
fn used(own: &TenantId, amount: u64) -> UsageEvent {
    let mut event = event(own, noon());
    event.tokens = must("making tokens", TokenUsage::total_only(amount));
    event
}

async fn settle(store: &Arc<dyn Store>, batch: &[UsageEvent], settlements: &[Settlement]) -> Vec<Appended> {
    must("append with settlements", store.append(batch, settlements).await)
}

/// A grant is what [`Standing::grant`] says for the standing that comes with it, and the next standing is the sum of the
/// grants, whatever is asked for by whom.
pub async fn grants_follow_the_rule(store: &Arc<dyn Store>) {
    let (acme, key) = (tenant("acme"), tokens());
    let holders = [HolderId::random(), HolderId::random(), HolderId::random()];
    let (mut granted, mut recorded) = ([0_u64; 3], 0_u64);
    let mut dice = Dice::new(5);
    for _ in 0..60 {
        let who = usize::try_from(dice.below(3)).unwrap_or(0);
        let need = u64::from(dice.below(60));
        let mut asked = slice(&key, 1_000, granted[who], need, need + u64::from(dice.below(300)));
        asked.unrecorded = u64::from(dice.below(2) * 10);
        let answer = acquire(store, &request(&acme, holders[who], vec![asked.clone()])).await.remove(0);
        let standing = answer.standing;
        assert_eq!(answer.granted, standing.grant(&asked), "{standing:?} for {asked:?}");
        assert_eq!((standing.used, standing.leased_here), (recorded, granted[who]));
        assert_eq!(standing.granted_here, granted[who]);
        assert_eq!(standing.leased_elsewhere, granted.iter().sum::<u64>() - granted[who]);
        granted[who] += answer.granted;
        assert!(granted.iter().sum::<u64>() + recorded <= 1_000, "over the limit: {granted:?}");
        if dice.below(6) == 0 && granted.iter().sum::<u64>() + recorded + 9 < 1_000 {
            append_new(store, &[used(&acme, 9)]).await;
            recorded += 9;
        }
    }
    assert!(granted.iter().sum::<u64>() > 500, "hardly anything was granted: {granted:?}");
}

/// Twenty callers at once get no more than the limit together, and its last unit.
pub async fn callers_at_once_never_pass_a_limit(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let mut callers = JoinSet::new();
    for caller in 0..20_u64 {
        let (store, acme) = (Arc::clone(store), acme.clone());
        callers.spawn(async move {
            let (holder, mut sums) = (HolderId::random(), [0_u64; 2]);
            let keys = [tokens(), key(Quota::ApiCalls, Window::Month)];
            let mut need = 1 + caller * 3 % 17;
            while need > 0 {
                let slices =
                    vec![slice(&keys[0], 500, sums[0], need, need * 2), slice(&keys[1], 100, sums[1], 1, 3)];
                let answers = acquire(&store, &request(&acme, holder, slices)).await;
                for (sum, answer) in sums.iter_mut().zip(&answers) {
                    // What an answer that was lost had granted is found by this.
                    *sum = answer.standing.granted_here + answer.granted;
                }
                if answers.iter().all(|answer| answer.granted == 0) {
                    need /= 2;
                }
            }
            sums
        });
    }
    let mut sums = [0_u64; 2];
    while let Some(caller) = callers.join_next().await {
        let granted = caller.unwrap_or_else(|error| panic!("a caller failed: {error}"));
        sums = [sums[0] + granted[0], sums[1] + granted[1]];
    }
    assert_eq!(sums, [500, 100]);
}

/// Recorded usage counts against every quota, in the windows that it lies in and in no other.
pub async fn recorded_usage_counts_in_its_windows(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let types = [EventType::ChatMessage, EventType::Embedding, EventType::Search];
    let instants = [
        "2026-03-01T12:00:59.999999Z",
        "2026-03-01T12:01:00Z",
        "2026-03-01T11:59:59.999999Z",
        "2026-03-02T00:00:00Z",
        "2026-02-28T23:59:59Z",
        "2026-04-01T00:00:00Z",
    ];
    let mut all = Vec::new();
    for instant in instants {
        for event_type in &types {
            for outcome in Outcome::ALL {
                let mut event = event(&acme, at(instant));
                event.event_type = event_type.clone();
                event.outcome = outcome;
                event.cost = Some(cost(Decimal::new(1_500, 9)));
                let measures = Measures::default().with("pages", Decimal::new(2, 0));
                event.measures = must("making a measure", measures);
                all.push(event);
            }
        }
    }
    append_new(store, &all).await;
    let pages = must("making a quota", Quota::custom("pages"));
    for rolled_up in [false, true] {
        for (window, times) in [
            (Window::Minute, 1),
            (Window::Hour, 2),
            (Window::Day, 3),
            (Window::Month, 4),
            (Window::Lifetime, 6),
        ] {
            let expected = [
                (Quota::Tokens, 15 * 15 * times),
                (Quota::ApiCalls, 3 * 2 * times),
                (Quota::ChatMessages, 2 * times),
                (Quota::Embeddings, 2 * times),
                (Quota::Cost, 1_500 * 15 * times),
                (pages.clone(), 2 * 15 * times),
            ];
            for (quota, amount) in expected {
                let key = key(quota.clone(), window);
                let used = standing(store, &acme, HolderId::random(), &key).await.used;
                assert_eq!(used, amount, "{quota} by {window}, rolled up: {rolled_up}");
                let asked = slice(&key, u64::MAX, 0, 1, 1);
                let answer = acquire(store, &request(&acme, HolderId::random(), vec![asked])).await;
                assert_eq!(answer[0].standing.used, amount, "{quota} by {window}, at a grant");
            }
        }
        roll_up_all(store).await;
    }
}

/// Usage that nobody leased anything for takes from what is left, and past the limit leaves nothing.
pub async fn usage_without_a_slice_counts(store: &Arc<dyn Store>) {
    let (acme, key, holder) = (tenant("acme"), tokens(), HolderId::random());
    append_new(store, &[used(&acme, 70)]).await;
    assert_eq!(take(store, &acme, holder, &key, 100, 0, 31).await.granted, 0);
    assert_eq!(take(store, &acme, holder, &key, 100, 0, 30).await.granted, 30);
    append_new(store, &[used(&acme, 400)]).await;
    let answer = take(store, &acme, holder, &key, 100, 30, 1).await;
    assert_eq!((answer.granted, answer.standing.used, answer.standing.leased_here), (0, 470, 30));
    assert_eq!(answer.standing.left(100), 0);
}

/// What the holder used and has not recorded yet is not granted.
pub async fn unrecorded_usage_is_not_granted(store: &Arc<dyn Store>) {
    let (acme, key, holder) = (tenant("acme"), tokens(), HolderId::random());
    let mut asked = slice(&key, 100, 0, 41, 41);
    asked.unrecorded = 60;
    assert_eq!(acquire(store, &request(&acme, holder, vec![asked.clone()])).await[0].granted, 0);
    asked.need = 40;
    assert_eq!(acquire(store, &request(&acme, holder, vec![asked])).await[0].granted, 40);
}

/// A settlement moves units from leased to used in the step in which the event begins to count: at no moment is there
/// more, or less, of the two together.
pub async fn a_settlement_moves_units_in_one_step(store: &Arc<dyn Store>) {
    let (acme, key, holder) = (tenant("acme"), tokens(), HolderId::random());
    assert_eq!(take(store, &acme, holder, &key, 200, 0, 100).await.granted, 100);
    let writer = {
        let (store, acme, key) = (Arc::clone(store), acme.clone(), key.clone());
        tokio::spawn(async move {
            for _ in 0..20 {
                let settlement = Settlement { event: 0, holder, key: key.clone(), amount: 5 };
                assert_eq!(settle(&store, &[used(&acme, 5)], &[settlement]).await, [Appended::New]);
            }
        })
    };
    let mut known = 100;
    while !writer.is_finished() {
        // Under the tenant's lock nothing is in between, and there is never more to be had than the other 100.
        let answer = take(store, &acme, holder, &key, 200, known, 0).await.standing;
        assert!(answer.used + answer.leased_here >= 100, "units were neither used nor leased: {answer:?}");
        known = answer.granted_here;
        // A store that never waits would keep the writer, queued behind this task, from ever running.
        tokio::task::yield_now().await;
    }
    must("the writer", writer.await.map_err(|error| crate::Error::invalid("writer", error.to_string())));
    for rolled_up in [false, true] {
        let end = standing(store, &acme, holder, &key).await;
        assert_eq!((end.used, end.leased_here, end.granted_here), (100, 0, 100), "rolled up: {rolled_up}");
        roll_up_all(store).await;
    }
}

/// What was settled of several slices by one batch is taken from each.
pub async fn settlements_of_a_batch_are_added_up(store: &Arc<dyn Store>) {
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let (one, other) = (HolderId::random(), HolderId::random());
    let calls = key(Quota::ApiCalls, Window::Month);
    for (own, holder) in [(&acme, one), (&acme, other), (&globex, one)] {
        let slices = vec![slice(&tokens(), 300, 0, 50, 50), slice(&calls, 300, 0, 50, 50)];
        acquire(store, &request(own, holder, slices)).await;
    }
    let batch = [used(&acme, 10), used(&acme, 20), used(&globex, 30)];
    let of = |event, holder, key: &LimitKey, amount| Settlement { event, holder, key: key.clone(), amount };
    let settlements = [
        of(0, one, &tokens(), 10),
        of(0, one, &calls, 1),
        of(1, one, &tokens(), 5),
        of(1, other, &tokens(), 15),
        of(2, one, &tokens(), 30),
    ];
    settle(store, &batch, &settlements).await;
    assert_eq!(standing(store, &acme, one, &tokens()).await.leased_here, 35);
    assert_eq!(standing(store, &acme, one, &calls).await.leased_here, 49);
    assert_eq!(standing(store, &acme, other, &tokens()).await.leased_here, 35);
    assert_eq!(standing(store, &globex, one, &tokens()).await.leased_here, 20);
    assert_eq!(standing(store, &globex, one, &calls).await.leased_here, 50);
}

/// A replayed append settles once; settlements of duplicates by key and of conflicts are not done.
pub async fn only_new_events_settle(store: &Arc<dyn Store>) {
    let (acme, key, holder) = (tenant("acme"), tokens(), HolderId::random());
    take(store, &acme, holder, &key, 100, 0, 100).await;
    let first = with_key(used(&acme, 10), "order-7");
    let of = |event, amount| Settlement { event, holder, key: key.clone(), amount };
    for turn in 0..3 {
        let expected = if turn == 0 { Appended::New } else { Appended::Duplicate };
        assert_eq!(settle(store, std::slice::from_ref(&first), &[of(0, 10)]).await, [expected]);
        assert_eq!(standing(store, &acme, holder, &key).await.leased_here, 90, "turn {turn}");
    }
    let by_key = again(&first, noon() + TimeDelta::seconds(1));
    let conflict = changed(&first, |event| event.outcome = Outcome::Failure);
    let new = used(&acme, 7);
    let appended = settle(store, &[by_key, conflict, new], &[of(0, 20), of(1, 30), of(2, 7)]).await;
    assert_eq!(appended, [Appended::Duplicate, Appended::Conflict, Appended::New]);
    let end = standing(store, &acme, holder, &key).await;
    assert_eq!((end.used, end.leased_here), (17, 83));
}

/// A request that is made again as it was, because its answer was lost, finds what it was granted and gets no more.
pub async fn lost_grants_are_found(store: &Arc<dyn Store>) {
    let (acme, key, holder) = (tenant("acme"), tokens(), HolderId::random());
    for turn in 0..3 {
        let answer = take(store, &acme, holder, &key, 100, 0, 60).await;
        let lost = answer.standing.granted_here;
        assert_eq!((lost, answer.granted), if turn == 0 { (0, 60) } else { (60, 0) }, "turn {turn}");
    }
    // More than was lost: the difference is granted.
    let answer = take(store, &acme, holder, &key, 100, 0, 75).await;
    assert_eq!((answer.standing.granted_here, answer.granted), (60, 15));
    assert_eq!(standing(store, &acme, holder, &key).await.leased_here, 75);
}

/// What is given back can be leased again, by anybody; told twice or in the wrong order it counts once, and more than was
/// granted cannot be given back.
pub async fn units_given_back_count_once(store: &Arc<dyn Store>) {
    let (acme, key) = (tenant("acme"), tokens());
    let (one, other) = (HolderId::random(), HolderId::random());
    take(store, &acme, one, &key, 100, 0, 80).await;
    for (told, leased) in [(20, 60), (20, 60), (50, 30), (20, 30), (0, 30), (u64::from(u32::MAX), 0)] {
        give_back(store, &acme, one, &key, told).await;
        assert_eq!(standing(store, &acme, one, &key).await.leased_here, leased, "told {told}");
    }
    assert_eq!(take(store, &acme, other, &key, 100, 0, 101).await.granted, 0);
    assert_eq!(take(store, &acme, other, &key, 100, 0, 100).await.granted, 100);
    // Of a limit, a window or a tenant that nothing was granted of: nothing happens.
    let month = super::quota::key(Quota::Tokens, Window::Month);
    give_back(store, &acme, one, &month, 5).await;
    give_back(store, &tenant("globex"), one, &key, 5).await;
    must("give_back of nothing", store.give_back(&[]).await);
    assert_eq!(standing(store, &acme, one, &month).await.left(10), 10);
    assert_eq!(standing(store, &acme, other, &key).await.leased_here, 100);
}

/// With `all_or_none` one need that is not met leaves everything as it was; without it the others are met.
pub async fn all_or_none_grants_all_or_none(store: &Arc<dyn Store>) {
    let (acme, holder) = (tenant("acme"), HolderId::random());
    let keys = [tokens(), key(Quota::ApiCalls, Window::Day), key(Quota::Tokens, Window::Month)];
    let slices = |need: u64| {
        vec![
            slice(&keys[0], 100, 0, 50, 50),
            slice(&keys[1], 10, 0, need, need),
            slice(&keys[2], 90, 0, 50, 50),
        ]
    };
    let mut all = request(&acme, holder, slices(11));
    all.all_or_none = true;
    assert!(acquire(store, &all).await.iter().all(|answer| answer.granted == 0));
    for key in &keys {
        assert_eq!(standing(store, &acme, holder, key).await.granted_here, 0, "{key:?}");
    }
    all.slices = slices(10);
    let granted: Vec<u64> = acquire(store, &all).await.iter().map(|answer| answer.granted).collect();
    assert_eq!(granted, [50, 10, 50]);
    let some = request(&acme, HolderId::random(), slices(1));
    let granted: Vec<u64> = acquire(store, &some).await.iter().map(|answer| answer.granted).collect();
    assert_eq!(granted, [50, 0, 0]);
}

/// Units whose holder no longer answers are forfeited: not sold, and shown. With `reclaim` they are sold again.
pub async fn expired_slices_are_forfeited_or_reclaimed(store: &Arc<dyn Store>) {
    let (acme, key) = (tenant("acme"), tokens());
    let (dead, alive) = (HolderId::random(), HolderId::random());
    take(store, &acme, dead, &key, 100, 0, 60).await;
    let settlement = Settlement { event: 0, holder: dead, key: key.clone(), amount: 10 };
    settle(store, &[used(&acme, 10)], &[settlement]).await;
    let before = standing_at(store, &acme, alive, &key, noon() + TimeDelta::seconds(29)).await;
    assert_eq!((before.leased_elsewhere, before.forfeited, before.holders), (50, 0, 2));
    let later = noon() + TimeDelta::seconds(30);
    let after = standing_at(store, &acme, alive, &key, later).await;
    assert_eq!((after.leased_elsewhere, after.forfeited, after.holders, after.used), (0, 50, 1, 10));
    // Its own are not lost to it by being late.
    let own = standing_at(store, &acme, dead, &key, later).await;
    assert_eq!((own.leased_here, own.forfeited), (50, 0));

    let mut asked = request(&acme, alive, vec![slice(&key, 100, 0, 41, 41)]);
    (asked.now, asked.expires_at) = (later, later + TimeDelta::seconds(30));
    assert_eq!(acquire(store, &asked).await[0].granted, 0, "forfeited units were sold");
    asked.reclaim = true;
    let answer = acquire(store, &asked).await.remove(0);
    assert_eq!((answer.granted, answer.standing.forfeited), (41, 0));
    assert_eq!(answer.standing.used, 10, "what was recorded stays used");
}

/// A request renews the holder's slices, one for nothing too.
pub async fn a_request_renews_slices(store: &Arc<dyn Store>) {
    let (acme, key) = (tenant("acme"), tokens());
    let (one, other) = (HolderId::random(), HolderId::random());
    take(store, &acme, one, &key, 100, 0, 60).await;
    let mut renewal = request(&acme, one, vec![slice(&key, 100, 60, 0, 0)]);
    renewal.now = noon() + TimeDelta::seconds(20);
    renewal.expires_at = noon() + TimeDelta::seconds(50);
    assert_eq!(acquire(store, &renewal).await[0].granted, 0);
    for (second, leased, forfeited) in [(49, 60, 0), (50, 0, 60)] {
        let now = noon() + TimeDelta::seconds(second);
        let seen = standing_at(store, &acme, other, &key, now).await;
        assert_eq!((seen.leased_elsewhere, seen.forfeited), (leased, forfeited), "second {second}");
    }
}

/// Holders, tenants, quotas and windows do not meet.
pub async fn slices_are_separate(store: &Arc<dyn Store>) {
    let (acme, globex, holder) = (tenant("acme"), tenant("ACME"), HolderId::random());
    take(store, &acme, holder, &tokens(), 100, 0, 100).await;
    let tomorrow =
        LimitKey { range: Window::Day.range_at(noon() + TimeDelta::days(1), Zone::UTC), ..tokens() };
    let others = [
        tomorrow,
        key(Quota::Tokens, Window::Month),
        key(Quota::Tokens, Window::Hour),
        key(Quota::Tokens, Window::Lifetime),
        key(Quota::Cost, Window::Day),
        key(must("making a quota", Quota::custom("Tokens")), Window::Day),
    ];
    for key in &others {
        let answer = take(store, &acme, holder, key, 100, 0, 100).await;
        assert_eq!((answer.granted, answer.standing.granted_here), (100, 0), "{key:?}");
    }
    let answer = take(store, &globex, holder, &tokens(), 100, 0, 100).await;
    assert_eq!((answer.granted, answer.standing.holders), (100, 1));
    let answer = take(store, &acme, HolderId::random(), &tokens(), 100, 0, 1).await;
    assert_eq!((answer.granted, answer.standing.leased_here, answer.standing.leased_elsewhere), (0, 0, 100));
    give_back(store, &acme, HolderId::random(), &tokens(), 100).await;
    assert_eq!(take(store, &acme, HolderId::random(), &tokens(), 100, 0, 1).await.granted, 0);
}

/// Answers come in the order of what was asked, and asking changes nothing.
pub async fn standings_come_in_order_and_change_nothing(store: &Arc<dyn Store>) {
    let (acme, holder) = (tenant("acme"), HolderId::random());
    assert!(must("standing of nothing", store.standing(&acme, holder, &[], noon()).await).is_empty());
    let keys = [key(Quota::ApiCalls, Window::Month), tokens(), key(Quota::Tokens, Window::Lifetime)];
    for (key, amount) in keys.iter().zip([3, 1, 2]) {
        take(store, &acme, holder, key, 100, 0, amount).await;
    }
    append_new(store, &[used(&acme, 9)]).await;
    for _ in 0..2 {
        let seen = must("standing", store.standing(&acme, holder, &keys, noon()).await);
        let leased: Vec<(u64, u64)> = seen.iter().map(|seen| (seen.leased_here, seen.used)).collect();
        assert_eq!(leased, [(3, 1), (1, 9), (2, 9)]);
    }
    let stranger = must("standing", store.standing(&tenant("globex"), holder, &keys, noon()).await);
    assert!(stranger.iter().all(|seen| seen.left(7) == 7 && seen.granted_here == 0), "{stranger:?}");
}
