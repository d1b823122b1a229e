//! A connection on loan from the pool.

use deadpool_postgres::{Client, Object};

use crate::{Error, ErrorKind, Result};

/// A connection that goes back to the pool only when the call says that it is done with it. A call that fails, runs out
/// of time or is dropped may leave a statement running: its connection is closed instead, so that nobody waits behind it.
pub(super) struct Lent(Option<Client>);

impl Lent {
    pub(super) fn new(client: Client) -> Self {
        Self(Some(client))
    }

    pub(super) fn client(&mut self) -> Result<&mut Client> {
        self.0.as_mut().ok_or_else(|| Error::new(ErrorKind::Misuse, "the connection was given back"))
    }

    /// The connection is idle again.
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}
