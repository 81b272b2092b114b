//! The kernel's modules that tests need, with those that they need themselves, in an order in which they load.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::debian::Kernel;

/// What the tests need where a kernel has it as a module. Nothing loads a module on demand inside, so all that nftables
/// and `tc` would ask for is named; what a kernel has built in, or doesn't know yet, is no error.
const WANTED: [&str; 18] = [
    // interfaces
    "dummy",
    "veth",
    "bridge",
    "br_netfilter",
    "vxlan",
    // filters at them
    "sch_ingress",
    "cls_bpf",
    "cls_u32",
    "act_mirred",
    // Services in nftables
    "nf_tables",
    "nft_counter",
    "nft_ct",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_numgen",
    "nft_fib_inet",
    "nft_reject_inet",
];

/// Unpacks them into `folder`; sorted by name they load.
pub(super) fn unpack(kernel: &Kernel, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut unpacked = Unpacked { kernel, folder, names: BTreeSet::new() };
    WANTED.iter().try_for_each(|name| unpacked.add(name))
}

struct Unpacked<'a> {
    kernel: &'a Kernel,
    folder: &'a Path,
    names: BTreeSet<String>,
}

impl Unpacked<'_> {
    /// One module behind those that it needs.
    fn add(&mut self, name: &str) -> Result<()> {
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = find(self.kernel, name)? else { return Ok(()) };
        let bytes = read(&path)?;
        for needed in dependencies(&bytes) {
            self.add(&needed)?;
        }
        let order = fs::read_dir(self.folder).context("listing the modules")?.count();
        let to = self.folder.join(format!("{order:03}-{name}.ko"));
        fs::write(&to, bytes).with_context(|| format!("writing {}", to.display()))
    }
}

/// The file of a module. Its name may be written with `-` where the module's own has `_`.
fn find(kernel: &Kernel, name: &str) -> Result<Option<PathBuf>> {
    let pattern = format!("{}.ko*", name.replace('_', "[-_]"));
    let found =
        Command::new("find").arg(&kernel.modules).args(["-name", &pattern]).output().context("starting find")?;
    ensure!(found.status.success(), "find failed in {}", kernel.modules.display());
    Ok(String::from_utf8_lossy(&found.stdout).lines().next().map(PathBuf::from))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let unpack: &[&str] = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => &["xz", "-dc"],
        Some("zst") => &["zstd", "-dqc"],
        Some("gz") => &["gzip", "-dc"],
        _ => &["cat"],
    };
    let output = Command::new(unpack[0]).args(&unpack[1..]).arg(path).output().context("unpacking a module")?;
    ensure!(output.status.success(), "{} could not unpack {}", unpack[0], path.display());
    Ok(output.stdout)
}

/// What the module's section `.modinfo` says that it needs: `depends=a,b` between zero bytes.
fn dependencies(module: &[u8]) -> Vec<String> {
    let said = module.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"depends="));
    let said = String::from_utf8_lossy(said.unwrap_or_default()).into_owned();
    said.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(dependencies(b"\x7fELF\0license=GPL\0depends=stp,llc\0name=bridge\0"), ["stp", "llc"]);
        assert_eq!(dependencies(b"license=GPL\0depends=\0name=veth\0"), [""; 0]);
        assert_eq!(dependencies(b"no fields"), [""; 0]);
    }
}
