//! Writes compiled tables into the maps of a [`Program`]. Entry point: [`write()`].

use anyhow::Result;
use aya::maps::{LpmTrie, lpm_trie::Key};
use enforcer_abi::{
    Address, BlockKey, ClassId, FrontEndKey, FrontEndValue, Op, PeerValue, PortKey, PortRangeKey, PortValue, RowKey,
    RowValue, map,
};

use super::program::Program;

/// Carries out writes in order.
///
/// # Errors
/// The kernel refuses one: a map is full, or what is to be deleted isn't there.
pub fn write(program: &mut Program, ops: &[Op]) -> Result<()> {
    for op in ops {
        one(program, op)?;
    }
    Ok(())
}

/// Empties `BLOCKS` and `PORT_RANGES`.
///
/// # Errors
/// The kernel refuses.
pub fn clear_tries(program: &mut Program) -> Result<()> {
    let mut trie = blocks(program)?;
    for key in trie.keys().collect::<Result<Vec<_>, _>>()? {
        trie.remove(&key)?;
    }
    let mut trie = ranges(program)?;
    for key in trie.keys().collect::<Result<Vec<_>, _>>()? {
        trie.remove(&key)?;
    }
    Ok(())
}

fn one(program: &mut Program, op: &Op) -> Result<()> {
    match *op {
        Op::PutPeer(value) => program.hash::<Address, PeerValue>(map::PEERS)?.insert(value.address, value, 0)?,
        Op::DeletePeer(address) => program.hash::<Address, PeerValue>(map::PEERS)?.remove(&address)?,
        Op::PutBlock(key, class) => blocks(program)?.insert(&block(key), class, 0)?,
        Op::DeleteBlock(key) => blocks(program)?.remove(&block(key))?,
        Op::PutPort(value) => program.hash::<PortKey, PortValue>(map::PORTS)?.insert(value.key, value, 0)?,
        Op::DeletePort(key) => program.hash::<PortKey, PortValue>(map::PORTS)?.remove(&key)?,
        Op::PutPortRange(key, value) => ranges(program)?.insert(&range(key), value, 0)?,
        Op::DeletePortRange(key) => ranges(program)?.remove(&range(key))?,
        Op::PutRow(value) => program.hash::<RowKey, RowValue>(map::ROWS)?.insert(value.key, value, 0)?,
        Op::DeleteRow(key) => program.hash::<RowKey, RowValue>(map::ROWS)?.remove(&key)?,
        Op::PutFrontEnd(value) => {
            program.hash::<FrontEndKey, FrontEndValue>(map::FRONT_ENDS)?.insert(value.key, value, 0)?;
        }
        Op::DeleteFrontEnd(key) => program.hash::<FrontEndKey, FrontEndValue>(map::FRONT_ENDS)?.remove(&key)?,
        Op::PutEndpoint(address) => program.hash::<Address, u32>(map::ENDPOINTS)?.insert(address, 1, 0)?,
        Op::DeleteEndpoint(address) => program.hash::<Address, u32>(map::ENDPOINTS)?.remove(&address)?,
    }
    Ok(())
}

fn blocks(program: &mut Program) -> Result<LpmTrie<&mut aya::maps::MapData, Address, ClassId>> {
    Ok(LpmTrie::try_from(program.map(map::BLOCKS)?)?)
}

fn block(key: BlockKey) -> Key<Address> {
    Key::new(key.prefix_len, key.address)
}

fn ranges(program: &mut Program) -> Result<LpmTrie<&mut aya::maps::MapData, [u8; 12], PortValue>> {
    Ok(LpmTrie::try_from(program.map(map::PORT_RANGES)?)?)
}

/// The bytes behind `prefix_len` as they lie in [`PortRangeKey`].
fn range(key: PortRangeKey) -> Key<[u8; 12]> {
    let [high, low] = key.table.map(u32::to_ne_bytes);
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&high);
    bytes[4..8].copy_from_slice(&low);
    bytes[8] = key.protocol;
    bytes[10..].copy_from_slice(&key.port);
    Key::new(key.prefix_len, bytes)
}
