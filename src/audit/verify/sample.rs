//! Some events at random, each with its proof.

use super::tenant::leaf_of;
use super::{Finding, Verifier, report::Findings};
use crate::audit::TenantHead;
use crate::audit::tree::{self, Tiles};
use crate::usage::EventId;
use crate::{Result, TenantId};

impl Verifier {
    /// Looks at so many events, chosen by a seed; every event is as likely as any other. Gives how many it looked at.
    pub(super) async fn check_sample(
        &self,
        heads: &[TenantHead],
        events: u32,
        seed: u64,
        findings: &mut Findings,
    ) -> Result<u64> {
        let total = heads.iter().fold(0_u64, |sum, head| sum.saturating_add(head.frontier.size()));
        if total == 0 {
            return Ok(0);
        }
        let mut random = seed;
        for _ in 0..events {
            let mut place = next(&mut random) % total;
            let chosen = heads.iter().find(|head| {
                let is_here = place < head.frontier.size();
                if !is_here {
                    place -= head.frontier.size();
                }
                is_here
            });
            if let Some(head) = chosen {
                self.check_leaf(head, place, findings).await?;
            }
        }
        Ok(u64::from(events))
    }

    async fn check_leaf(&self, head: &TenantHead, position: u64, findings: &mut Findings) -> Result<()> {
        let tenant_id = head.tenant_id.clone();
        let nodes =
            super::prove::nodes_around(&*self.store, &tenant_id, position, head.frontier.size()).await;
        let Some(nodes) = findings.readable(nodes)? else {
            return Ok(());
        };
        let leaf = nodes.iter().find(|kept| kept.node.level == 0 && kept.node.position == position);
        let Some((hash, Some(event_id))) = leaf.map(|kept| (kept.node.hash, kept.event_id)) else {
            findings.add(Finding::TreeAltered { tenant_id });
            return Ok(());
        };
        let tiles = Tiles::new(&head.frontier, nodes.iter().map(|kept| kept.node));
        let proof = tiles.inclusion(position).unwrap_or_default();
        if !tree::verify_inclusion(hash, position, head.frontier.size(), &proof, head.root) {
            findings.add(Finding::TreeAltered { tenant_id: tenant_id.clone() });
        }
        let key: (TenantId, EventId) = (tenant_id.clone(), event_id);
        let rows = self.store.audit_rows_by_key(std::slice::from_ref(&key)).await;
        let id = event_id.as_uuid();
        match findings.readable(rows)?.unwrap_or_default().first() {
            None => findings.add(Finding::Missing { tenant_id, id }),
            Some(row) if leaf_of(row) != Some(hash) => findings.add(Finding::Edited { tenant_id, id }),
            Some(_) => {}
        }
        Ok(())
    }
}

/// The next number of a splitmix64 sequence: no secret, only spread.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
