//! Keys of persons: one each, gone when erased, kept while held.

#![allow(clippy::missing_panics_doc)]

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::sample::{label, ok, tenant};
use crate::store::{AuditStore, KeyErased};

/// Of many callers at once all are given the same key, which is one of theirs; another tenant's person has none.
pub async fn the_first_key_of_a_person_stays(store: &Arc<dyn AuditStore>) {
    let acme = tenant("acme");
    for round in 0..5 {
        let subject = label(&format!("p-{round}"));
        assert_eq!(ok(store.subject_key(&acme, &subject).await), None);
        let mut callers = JoinSet::new();
        for caller in 0..8_u8 {
            let (store, acme, subject) = (Arc::clone(store), acme.clone(), subject.clone());
            callers.spawn(async move { ok(store.put_subject_key(&acme, &subject, &[caller; 33]).await) });
        }
        let kept: BTreeSet<Vec<u8>> = callers.join_all().await.into_iter().collect();
        assert_eq!(kept.len(), 1, "callers at once are given different keys");
        let kept = kept.into_iter().next().unwrap_or_default();
        assert!(kept.len() == 33 && kept[0] < 8 && kept.iter().all(|byte| *byte == kept[0]));
        assert_eq!(ok(store.subject_key(&acme, &subject).await), Some(kept.clone()));
        assert_eq!(ok(store.put_subject_key(&acme, &subject, &[99; 33]).await), kept);
        assert_eq!(ok(store.subject_key(&tenant("bolt"), &subject).await), None);
    }
}

/// It is gone, nobody else's is, and the person can have another.
pub async fn an_erased_key_is_gone(store: &Arc<dyn AuditStore>) {
    let (acme, bolt, subject, other) = (tenant("acme"), tenant("bolt"), label("p"), label("q"));
    assert_eq!(ok(store.erase_subject_key(&acme, &subject).await), KeyErased::Absent);
    for (own, person) in [(&acme, &subject), (&acme, &other), (&bolt, &subject)] {
        ok(store.put_subject_key(own, person, &[1; 33]).await);
    }
    assert_eq!(ok(store.erase_subject_key(&acme, &subject).await), KeyErased::Erased);
    assert_eq!(ok(store.erase_subject_key(&acme, &subject).await), KeyErased::Absent, "a second time");
    assert_eq!(ok(store.subject_key(&acme, &subject).await), None);
    for (own, person) in [(&acme, &other), (&bolt, &subject)] {
        assert_eq!(ok(store.subject_key(own, person).await), Some(vec![1; 33]));
    }
    assert_eq!(ok(store.put_subject_key(&acme, &subject, &[2; 33]).await), [2; 33]);
}

/// A hold on a person keeps that person's key, one on everybody keeps all of the tenant's, and neither keeps others'.
pub async fn a_hold_keeps_the_keys_it_names(store: &Arc<dyn AuditStore>) {
    let (acme, bolt, subject, other) = (tenant("acme"), tenant("bolt"), label("p"), label("q"));
    let put_all = async || {
        for (own, person) in [(&acme, &subject), (&acme, &other), (&bolt, &subject)] {
            ok(store.put_subject_key(own, person, &[1; 33]).await);
        }
    };
    put_all().await;
    let held = KeyErased::Held(label("case 7"));
    ok(store.set_legal_hold(&acme, Some(&subject), Some(&label("case 7"))).await);
    assert_eq!(ok(store.erase_subject_key(&acme, &subject).await), held);
    assert_eq!(ok(store.subject_key(&acme, &subject).await), Some(vec![1; 33]));
    assert_eq!(ok(store.erase_subject_key(&acme, &other).await), KeyErased::Erased);
    assert_eq!(ok(store.erase_subject_key(&bolt, &subject).await), KeyErased::Erased);
    ok(store.set_legal_hold(&acme, Some(&subject), None).await);
    put_all().await;
    ok(store.set_legal_hold(&acme, None, Some(&label("case 7"))).await);
    for person in [&subject, &other] {
        assert_eq!(ok(store.erase_subject_key(&acme, person).await), held);
        assert_eq!(ok(store.subject_key(&acme, person).await), Some(vec![1; 33]));
    }
    assert_eq!(ok(store.erase_subject_key(&acme, &label("nobody")).await), held, "a hold holds before all");
    assert_eq!(ok(store.erase_subject_key(&bolt, &subject).await), KeyErased::Erased);
}

/// A released hold forbids no more; each is released by itself, and a reason that is given anew is the one that is told.
pub async fn a_hold_is_released(store: &Arc<dyn AuditStore>) {
    let (acme, subject) = (tenant("acme"), label("p"));
    ok(store.put_subject_key(&acme, &subject, &[1; 33]).await);
    ok(store.set_legal_hold(&acme, None, Some(&label("case 8"))).await);
    for reason in ["case 7", "case 9"] {
        ok(store.set_legal_hold(&acme, Some(&subject), Some(&label(reason))).await);
    }
    let erased = async || ok(store.erase_subject_key(&acme, &subject).await);
    assert!(matches!(erased().await, KeyErased::Held(_)));
    ok(store.set_legal_hold(&acme, None, None).await);
    assert_eq!(erased().await, KeyErased::Held(label("case 9")), "the person's own hold is still there");
    ok(store.set_legal_hold(&acme, Some(&subject), None).await);
    ok(store.set_legal_hold(&acme, Some(&subject), None).await);
    assert_eq!(erased().await, KeyErased::Erased);
}
