//! Events, newest first, a page at a time.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use chrono::TimeDelta;
use tokio::task::JoinSet;

use super::model::Model;
use super::sample::{
    Dice, all_pages, all_time, append_among_others, append_new, at, between, event, events, kept, must, page,
    refused, tenant, the_day,
};
use crate::TenantId;
use crate::page::{Cursor, PageSize};
use crate::store::Store;
use crate::usage::{EventQuery, EventType, Outcome, UsageEvent};

/// Newest first means by id, descending, whatever the order in which they came.
pub async fn events_come_newest_first(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let all = events(&acme, 50);
    let mut shuffled = all.clone();
    Dice::new(1).shuffle(&mut shuffled);
    for batch in shuffled.chunks(7) {
        append_new(store, batch).await;
    }
    let newest_first: Vec<UsageEvent> = all.into_iter().rev().collect();
    assert_eq!(kept(store, &acme).await, newest_first);
    assert!(kept(store, &tenant("nobody")).await.is_empty());
}

/// Pages of any size are the whole, each event once, and the last one has no cursor, also where it is full.
pub async fn pages_overlap_nowhere_and_miss_nothing(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let all = events(&acme, 60);
    append_new(store, &all).await;
    append_new(store, &events(&tenant("globex"), 60)).await;
    let query = EventQuery::new(acme, the_day());
    let expected = Model(&all).events(&query);
    for size in [1, 7, 20, 30, 59, 60, 61, 1_000] {
        assert_eq!(all_pages(store, &query, size).await, expected, "pages of {size}");
    }
    let full = page(store, &query.page_size(size(60))).await;
    assert_eq!((full.items.len(), full.next), (60, None), "the last page is full and has a cursor");
}

/// Events of the same instant are told apart by their ids.
pub async fn pages_of_one_millisecond_are_told_apart(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let all: Vec<UsageEvent> = (0..40).map(|_| event(&acme, at("2026-03-01T10:00:00.123456Z"))).collect();
    append_new(store, &all).await;
    let query = EventQuery::new(acme, the_day());
    assert_eq!(all_pages(store, &query, 3).await, Model(&all).events(&query));
}

/// What was there when the first page was read is on exactly one page, while newer and older events come in.
pub async fn pages_are_stable_while_events_come_in(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let before: Vec<UsageEvent> = (0..100)
        .map(|number| event(&acme, the_day().start() + TimeDelta::minutes(number * 10 + 5)))
        .collect();
    append_new(store, &before).await;
    let query = EventQuery::new(acme.clone(), the_day()).page_size(size(9));
    let first = page(store, &query).await;
    let mut writers = JoinSet::new();
    for writer in 0..3 {
        let (store, acme) = (Arc::clone(store), acme.clone());
        writers.spawn(async move {
            let mut dice = Dice::new(writer);
            for _ in 0..20 {
                let batch: Vec<UsageEvent> = (0..5).map(|_| event(&acme, dice.instant(the_day()))).collect();
                append_among_others(&store, &batch).await;
            }
        });
    }
    let mut read = first.items;
    let mut next = first.next;
    while let Some(cursor) = next {
        let page = page(store, &query.clone().after(cursor)).await;
        read.extend(page.items);
        next = page.next;
    }
    writers.join_all().await;
    assert!(read.windows(2).all(|pair| pair[0].id() > pair[1].id()), "pages overlap or are out of order");
    for event in &before {
        assert!(read.contains(event), "on no page: {event:?}");
    }
}

/// By type, by outcome, by both, with pages in between.
pub async fn pages_are_filtered_by_type_and_outcome(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let mut dice = Dice::new(5);
    let all: Vec<UsageEvent> = (0..200).map(|_| dice.event(&acme, the_day())).collect();
    append_new(store, &all).await;
    let custom = must("making an event type", EventType::custom("ocr.page-2"));
    // Names that are the beginning of another, and that sort at the ends.
    let others = ["ocr.page", "z", "unheard_of", "0"]
        .map(EventType::custom)
        .map(|of| must("making an event type", of));
    let types = EventType::BUILT_IN.into_iter().chain([custom]).chain(others).map(Some).chain([None]);
    for event_type in types {
        for outcome in Outcome::ALL.into_iter().map(Some).chain([None]) {
            let mut query = EventQuery::new(acme.clone(), the_day());
            (query.event_type, query.outcome) = (event_type.clone(), outcome);
            let expected = Model(&all).events(&query);
            assert_eq!(all_pages(store, &query, 7).await, expected, "{event_type:?} with {outcome:?}");
        }
    }
}

/// The range of events need not lie on quarter hours: it is exact to the microsecond, inside of one millisecond too.
pub async fn pages_are_bounded_to_the_microsecond(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let start = at("2026-03-01T10:00:00.000Z");
    let instants = [0, 1, 499, 500, 501, 999, 1_000, 1_001, 1_999, 2_000];
    let mut all = Vec::new();
    for microseconds in instants {
        all.push(event(&acme, start + TimeDelta::microseconds(microseconds)));
        all.push(event(&acme, start + TimeDelta::microseconds(microseconds)));
    }
    Dice::new(3).shuffle(&mut all);
    append_new(store, &all).await;
    for from in [-1, 0, 1, 500, 999, 1_000, 1_001] {
        for to in [1, 499, 501, 999, 1_000, 1_001, 2_000, 2_001] {
            if from >= to {
                continue;
            }
            let range = between(start + TimeDelta::microseconds(from), start + TimeDelta::microseconds(to));
            let query = EventQuery::new(acme.clone(), range);
            assert_eq!(all_pages(store, &query, 2).await, Model(&all).events(&query), "in {range}");
        }
    }
}

/// A cursor of another tenant, range, type or outcome is refused, and so is one that nobody made.
pub async fn a_cursor_of_another_query_is_refused(store: &Arc<dyn Store>) {
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    append_new(store, &events(&acme, 10)).await;
    append_new(store, &events(&globex, 10)).await;
    let small = |tenant_id: &TenantId| EventQuery::new(tenant_id.clone(), the_day()).page_size(size(3));
    let cursor = cursor_of(store, &small(&acme)).await;
    let others = [
        small(&globex),
        EventQuery::new(acme.clone(), all_time()).page_size(size(3)),
        small(&acme).event_type(EventType::ChatMessage),
        small(&acme).outcome(Outcome::Success),
        small(&tenant("nobody")),
    ];
    for query in others {
        let answer = store.events(&query.clone().after(cursor.clone())).await;
        refused(&format!("the cursor of another query than {query:?}"), answer, &["cursor"]);
    }
    assert_eq!(page(store, &small(&acme).after(cursor)).await.items.len(), 3);
}

/// The page size may change between two pages, and a cursor may travel as text.
pub async fn a_cursor_is_good_for_another_page_size(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let all = events(&acme, 30);
    append_new(store, &all).await;
    let query = EventQuery::new(acme, the_day());
    let cursor = cursor_of(store, &query.clone().page_size(size(4))).await;
    let cursor: Cursor = must("reading a cursor", cursor.to_string().parse());
    let rest = page(store, &query.clone().page_size(size(100)).after(cursor)).await;
    assert_eq!(rest.items, Model(&all).events(&query)[4..]);
    assert_eq!(rest.next, None);
}

fn size(size: u16) -> PageSize {
    must("making a page size", PageSize::new(size))
}

async fn cursor_of(store: &Arc<dyn Store>, query: &EventQuery) -> Cursor {
    page(store, query).await.next.unwrap_or_else(|| panic!("a page that is not the last has no cursor"))
}
