//! A connection on loan from the pool.

use deadpool_postgres::{Client, Object};

/// Keeps a connection that goes back to the pool only when the call says that it is done with it. A call that fails, runs
/// out of time or is dropped may leave a statement running: its connection is closed instead, so that nobody waits behind
/// it.
#[derive(Default)]
pub(super) struct Loan(Option<Client>);

impl Loan {
    /// Takes a connection into keeping; it is used as long as the loan is not given back.
    pub(super) fn of(&mut self, client: Client) -> &mut Client {
        self.0.insert(client)
    }

    /// The connection is idle again.
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}
