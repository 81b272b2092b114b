//! The promise that user space may copy these types to and from map memory.

use crate::{
    Address, BlockKey, Counters, Event, EventBudget, FlowKey, FlowValue, FragmentKey, FragmentValue, FrontEndKey,
    FrontEndValue, PeerValue, PodEntry, PortKey, PortRangeKey, PortValue, RowKey, RowValue, Settings,
};

macro_rules! plain {
    ($($name:ident),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` of integers, arrays of integers and such structs: no padding (the sizes are asserted
            // where the types are defined), no pointers, every bit pattern valid.
            unsafe impl aya::Pod for $name {}
        )+
    };
}

plain!(
    Address,
    BlockKey,
    Counters,
    Event,
    EventBudget,
    FlowKey,
    FlowValue,
    FragmentKey,
    FragmentValue,
    FrontEndKey,
    FrontEndValue,
    PeerValue,
    PodEntry,
    PortKey,
    PortRangeKey,
    PortValue,
    RowKey,
    RowValue,
    Settings,
);
