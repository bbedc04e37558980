//! Arithmetic of handshakes, on a thread of its own.
//!
//! Owns the thread, started with the first sum. A sum takes a tenth of a millisecond, for which no connection shall wait
//! that has its handshake behind it; a thousand callers who encrypt at once are slow to themselves alone.

use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};
use piecemeal_engine::cx::ConnId;
use piecemeal_transport::mse::{Sum, Total};

use crate::mailbox::Mailbox;

/// Sums that may wait; each handshake under way has one at most, and the Server bounds those.
const MOST_WAITING: usize = 4096;

/// The door to the thread, which ends with it.
pub(crate) struct Sums {
    totals: Arc<Mailbox<(ConnId, Total)>>,
    asks: Option<Sender<(ConnId, Box<Sum>)>>,
}

impl Sums {
    pub(crate) fn new(totals: Arc<Mailbox<(ConnId, Total)>>) -> Sums {
        Sums { totals, asks: None }
    }

    /// Has it done; answered by one total. One that cannot be done is lost, and its handshake times out.
    pub(crate) fn ask(&mut self, conn: ConnId, sum: Box<Sum>) {
        if self.asks.is_none() {
            let (asks, inbox) = bounded::<(ConnId, Box<Sum>)>(MOST_WAITING);
            let totals = self.totals.clone();
            let run = move || inbox.into_iter().for_each(|(conn, sum)| totals.push((conn, sum.run())));
            let _ = std::thread::Builder::new().name("piecemeal-sums".into()).spawn(run);
            self.asks = Some(asks);
        }
        if let Some(asks) = &self.asks {
            let _ = asks.try_send((conn, sum));
        }
    }
}
