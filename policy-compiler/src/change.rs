//! What the compiler answers: writes in make-before-break order.
//!
//! Whoever carries the steps out in order, and stops between any two of them, leaves every packet judged by the policy
//! before or the one after, never by a mixture.

use std::{net::IpAddr, sync::Arc};

use enforcer_abi::{Op, Openness, TableId};

use crate::model::ObjectName;

/// The answer to one batch of events.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Changes {
    /// To be carried out in this order.
    pub steps: Vec<Step>,
    /// What an administrator should know.
    pub reports: Vec<Report>,
}

impl Changes {
    /// Whether there is nothing to carry out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// One step of [`Changes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writes to the tables, in this order.
    Write(Vec<Op>),
    /// The pods of this node whose entry changes: one atomic update each.
    Pods(Vec<PodUpdate>),
    /// What these pods are allowed may have shrunk: flows of theirs that were judged before are judged again. UIDs, in
    /// order.
    RaiseEpoch(Vec<Arc<str>>),
    /// Removal of what no pod uses any more. To be carried out a grace period after the steps before it.
    Free(Vec<Op>),
}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodUpdate {
    /// New, or with other tables than before.
    Put(PodTables),
    /// Gone, ended, or no pod of this node any more.
    Delete {
        /// `metadata.uid`
        uid: Arc<str>,
    },
}

/// What the kernel has to know of a pod of this node; the interface is the caller's knowledge.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PodTables {
    /// `metadata.uid`
    pub uid: Arc<str>,
    /// Its name.
    pub name: ObjectName,
    /// The addresses that it holds, at most one a family: not those that another pod has taken over.
    pub addresses: Vec<IpAddr>,
    /// `None` if nothing isolates it for ingress.
    pub ingress: Option<TableUse>,
    /// `None` if nothing isolates it for egress.
    pub egress: Option<TableUse>,
    /// Its namespace lets it forward (see [`crate::model::Namespace::forwards`]).
    pub forwards: bool,
    /// Its namespace is in audit mode.
    pub audit: bool,
}

/// A pod's table for one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct TableUse {
    /// The table.
    pub id: TableId,
    /// What it opens to everybody.
    pub everybody: Openness,
    /// Whether it has port ranges.
    pub ranges: bool,
}

/// What an administrator should know of the state as it is. A report that is not repeated in the next answer still
/// holds until its counterpart comes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Report {
    /// Two live pods claim an address; `holder` has it.
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// Who has it now.
        holder: ObjectName,
        /// Who claims it as well.
        other: ObjectName,
    },
    /// Some back ends of a front end are refused, so it is closed to new connections of the pods of `table`.
    MixedService {
        /// The Service.
        service: ObjectName,
        /// The front end; `None` for a node port.
        address: Option<IpAddr>,
        /// The front end's port.
        port: u16,
        /// A back end that is refused.
        closed_by: IpAddr,
        /// The egress table.
        table: TableId,
    },
    /// What was reported of this Service's front end for this table is over.
    ServiceUnmixed {
        /// The Service.
        service: ObjectName,
        /// The egress table.
        table: TableId,
    },
}
