//! Where connections are kept: a place each, used again with another generation.

use super::UtpId;
use super::conn::Conn;

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    conn: Option<Box<Conn>>,
}

/// Bounded by who inserts.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn insert(&mut self, make: impl FnOnce(UtpId) -> Conn) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let place = &mut self.slots[slot as usize];
        place.conn = Some(Box::new(make(UtpId { slot, generation: place.generation })));
        slot
    }

    pub fn get(&mut self, slot: u32) -> Option<&mut Conn> {
        self.slots.get_mut(slot as usize)?.conn.as_deref_mut()
    }

    /// One that only lingers.
    pub fn lingering(&self) -> Option<u32> {
        let lingers = |slot: &Slot| slot.conn.as_ref().is_some_and(|conn| conn.lingers());
        self.slots.iter().position(lingers).map(|slot| slot as u32)
    }

    pub fn of(&mut self, id: UtpId) -> Option<&mut Conn> {
        self.get(id.slot).filter(|conn| conn.id == id)
    }

    pub fn look(&self, id: UtpId) -> Option<&Conn> {
        self.slots.get(id.slot as usize)?.conn.as_deref().filter(|conn| conn.id == id)
    }

    pub fn remove(&mut self, slot: u32) -> Option<Box<Conn>> {
        let place = self.slots.get_mut(slot as usize)?;
        let conn = place.conn.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot);
        Some(conn)
    }
}
