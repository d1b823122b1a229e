//! Where models were found, so that the rules are asked once for each name.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{PoisonError, RwLock};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::book::Unpriced;
use super::catalogue::{Place, PriceCatalogue};

/// Names come from outside: beyond so many the cache begins anew.
const NAMES_MAX: usize = 4_096;

/// What was found for a provider and a model.
#[derive(Debug, Default)]
pub(super) struct Places {
    found: RwLock<HashTable<Found>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Found {
    provider: Option<Box<str>>,
    model: Box<str>,
    place: Result<Place, Unpriced>,
}

impl Places {
    pub(super) fn find(
        &self,
        catalogue: &PriceCatalogue,
        provider: Option<&str>,
        model: &str,
    ) -> Result<Place, Unpriced> {
        let hash = self.hash(provider, model);
        let is = |found: &Found| &*found.model == model && found.provider.as_deref() == provider;
        let known = self
            .found
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .find(hash, is)
            .map(|found| found.place.clone());
        if let Some(place) = known {
            return place;
        }
        let place = catalogue.find(provider, model);
        let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= NAMES_MAX {
            found.clear();
        }
        if found.find(hash, is).is_none() {
            let new = Found { provider: provider.map(Into::into), model: model.into(), place: place.clone() };
            found.insert_unique(hash, new, |found| self.hash(found.provider.as_deref(), &found.model));
        }
        place
    }

    fn hash(&self, provider: Option<&str>, model: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        provider.hash(&mut hasher);
        model.hash(&mut hasher);
        hasher.finish()
    }
}
