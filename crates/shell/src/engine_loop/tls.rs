//! Connections by TLS: between the bytes of a socket and what its owner hears and says.
//!
//! Who calls us by TLS is told from the others by its first bytes, so that one port serves all; nobody is, unless some torrent
//! wants it.

use piecemeal_engine::cx::Goodbye;

use super::conns::{Owner, Slot};
use super::settle::ENCIPHERED_BYTES;
use super::{EngineLoop, to_owner};
use crate::driven::{Data, Front};
use crate::tls::Tls;

impl<F: Front, D: Data> EngineLoop<F, D> {
    /// Hears the first `bytes` bytes of the scratch buffer, of a connection that speaks TLS. What they held is offered to
    /// its owner by the reader's next round.
    pub(super) fn hear_tls(&mut self, slot: Slot, bytes: usize) {
        let Some(conn) = self.conns.get(slot) else { return };
        let tls = conn.tls.get_or_insert_with(|| Box::new(Tls::caller()));
        match tls.hear(&self.scratch[..bytes], &self.identities, &mut conn.kept) {
            Ok(proved) => {
                let id = conn.id;
                if let Some(torrent) = proved {
                    self.front.on_proved(id, torrent);
                }
                self.list_to_write(slot);
            }
            Err(why) => self.lose(slot, Goodbye::Failed(why)),
        }
    }

    /// Seals what TLS, or its owner, has to say next.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn seal_tls(&mut self, slot: Slot) -> Result<(), Goodbye> {
        let Some(conn) = self.conns.get(slot) else { return Ok(()) };
        let Some(tls) = &mut conn.tls else { return Ok(()) };
        let failed = |why: std::io::Error| Goodbye::Failed(why.to_string());
        tls.words(&mut conn.unsent).map_err(failed)?;
        if !tls.is_ready() {
            return Ok(());
        }
        let (id, owner, files, gathered) = (conn.id, conn.owner, &mut self.send_files, &mut self.gathered);
        gathered.clear();
        let result = to_owner!(self, owner, it => {
            it.with_sealed(id, |slices| files.gather(slices, ENCIPHERED_BYTES, gathered))
        });
        result.unwrap_or(Ok(()))?;
        tls.seal(gathered, &mut conn.unsent).map_err(failed)?;
        let bytes = gathered.len();
        if bytes > 0 {
            to_owner!(self, owner, it => it.on_wrote(self.now, id, bytes));
        }
        Ok(())
    }
}
