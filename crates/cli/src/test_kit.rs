//! What tests of the commands share.

use std::io;
use std::sync::{Arc, Mutex};

/// What was written to a stream.
#[derive(Clone, Default)]
pub(crate) struct Ink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Ink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Ink {
    /// All that was written.
    pub(crate) fn read(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// What was written since the last time.
    pub(crate) fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}
