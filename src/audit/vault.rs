//! The keys of personal data: made when a person is first met, read when somebody may read, gone when the person is
//! forgotten. Nothing is kept in the process between two calls.

use std::collections::HashMap;
use std::sync::Arc;

use crate::audit::key::available;
use crate::audit::personal::{Place, SubjectKey};
use crate::audit::{AuditEvent, AuditKeys};
use crate::store::AuditStore;
use crate::text::Label;
use crate::{Error, ErrorKind, Result, TenantId};

#[derive(Clone, Debug)]
pub(crate) struct Vault {
    pub(crate) store: Arc<dyn AuditStore>,
    pub(crate) keys: Arc<dyn AuditKeys>,
}

impl Vault {
    /// Encrypts what the events have about persons.
    pub(crate) async fn seal(&self, events: &mut [AuditEvent]) -> Result<()> {
        let mut known: HashMap<(TenantId, Label), SubjectKey> = HashMap::new();
        for event in events {
            let (tenant_id, event_id) = (event.tenant_id.clone(), event.id());
            for (field, data) in &mut event.personal {
                if data.sealed().is_some() {
                    continue;
                }
                let whose = (tenant_id.clone(), data.subject().clone());
                let key = match known.get(&whose) {
                    Some(key) => key.clone(),
                    None => self.key_of(&whose.0, &whose.1).await?,
                };
                *data = data.sealed_with(&key, Place { tenant_id: &tenant_id, event_id, field })?;
                known.insert(whose, key);
            }
        }
        Ok(())
    }

    /// The text of one of an event's personal fields; `None` if the person was forgotten.
    pub(crate) async fn open(&self, event: &AuditEvent, field: &Label) -> Result<Option<String>> {
        let missing =
            || Error::new(ErrorKind::InvalidInput, format!("the event has no personal field {field}"));
        let data = event.personal.get(field).ok_or_else(missing)?;
        let (tenant_id, subject) = (&event.tenant_id, data.subject());
        let Some(stored) = self.store.subject_key(tenant_id, subject).await? else {
            return Ok(None);
        };
        let key = self.unwrap(&stored, tenant_id, subject)?;
        data.opened_with(&key, Place { tenant_id, event_id: event.id(), field }).map(Some)
    }

    async fn key_of(&self, tenant_id: &TenantId, subject: &Label) -> Result<SubjectKey> {
        if let Some(stored) = self.store.subject_key(tenant_id, subject).await? {
            return self.unwrap(&stored, tenant_id, subject);
        }
        let owner = SubjectKey::owner(tenant_id, subject);
        let wrapping = available(self.keys.wrapping_keys())?;
        let new = SubjectKey::generate().to_stored(wrapping.first(), &owner)?;
        let stored = self.store.put_subject_key(tenant_id, subject, &new).await?;
        self.unwrap(&stored, tenant_id, subject)
    }

    fn unwrap(&self, stored: &[u8], tenant_id: &TenantId, subject: &Label) -> Result<SubjectKey> {
        let owner = SubjectKey::owner(tenant_id, subject);
        SubjectKey::from_stored(stored, &available(self.keys.wrapping_keys())?, &owner)
    }
}
