//! Container images made without a container tool: files in, one archive in OCI image layout out, which containerd and
//! every other runtime imports. The same files always give the same bytes. Start at [`Archive::new`].
#![forbid(unsafe_code)]

use std::{
    fs::File,
    io::{Read as _, Write},
    path::{Path, PathBuf},
};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// Why an archive can't be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that shall be in an image.
    #[error("cannot read {}, which shall be in the image", path.display())]
    Read {
        /// Where it is on this machine.
        path: PathBuf,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// Part of an image, or of the archive itself.
    #[error("cannot write {path} of the archive")]
    Write {
        /// Its path in the image or the archive.
        path: String,
        /// What the kernel or the tar format says: a path may be too long, say.
        source: std::io::Error,
    },
}

type Result<T> = std::result::Result<T, Error>;

/// An image of one layer.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// All names that it shall be known by, such as `registry.k8s.io/pause:3.10`.
    pub names: Vec<String>,
    /// What is in it. Parents must come first.
    pub entries: Vec<Entry>,
    /// The program and its arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that a user of the image replaces.
    pub command: Vec<String>,
    /// `UID` or `UID:GID`; empty for root.
    pub user: String,
}

/// Something in an image; paths start without a slash.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A folder, with its mode.
    Folder(String, u32),
    /// A program or other file, with its mode, and where it is on this machine.
    File(String, u32, PathBuf),
    /// A file with this text.
    Text(String, String),
    /// A symbolic link and what it points to.
    Link(String, String),
}

/// An archive of images that is being written.
pub struct Archive<W: Write> {
    tar: Builder<W>,
    manifests: Vec<serde_json::Value>,
}

struct Blob {
    digest: String,
    size: usize,
}

impl<W: Write> Archive<W> {
    /// Starts one.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn new(to: W) -> Result<Self> {
        let mut tar = Builder::new(to);
        append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { tar, manifests: Vec::new() })
    }

    /// Adds an image.
    ///
    /// # Errors
    /// If one of its files can't be read, or the archive can't be written.
    pub fn add(&mut self, image: &Image) -> Result<()> {
        let layer = layer(&image.entries)?;
        let layer = self.blob(&layer)?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": image.entrypoint,
                "Cmd": image.command,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "User": image.user,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        });
        let config = self.blob(config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let manifest = self.blob(manifest.to_string().as_bytes())?;
        for name in &image.names {
            let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
            entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
            entry["annotations"] = json!({
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rsplit_once(':').map_or("latest", |(_, tag)| tag),
            });
            self.manifests.push(entry);
        }
        Ok(())
    }

    /// Writes what readers look at first.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn finish(mut self) -> Result<W> {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": self.manifests,
        });
        append(&mut self.tar, "index.json", index.to_string().as_bytes())?;
        self.tar.into_inner().map_err(at("index.json"))
    }

    fn blob(&mut self, bytes: &[u8]) -> Result<Blob> {
        let digest = digest(bytes);
        append(&mut self.tar, &format!("blobs/sha256/{digest}"), bytes)?;
        Ok(Blob { digest: format!("sha256:{digest}"), size: bytes.len() })
    }
}

/// SHA-256 in hexadecimal digits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn descriptor(kind: &str, blob: &Blob) -> serde_json::Value {
    json!({"mediaType": kind, "digest": blob.digest, "size": blob.size})
}

/// As images name them.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The layer, not compressed: it is read at once, on this machine.
fn layer(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for entry in entries {
        match entry {
            Entry::Folder(path, mode) => {
                let mut header = header(EntryType::Directory, *mode, 0);
                tar.append_data(&mut header, path, std::io::empty()).map_err(at(path))?;
            }
            Entry::File(path, mode, from) => {
                let mut bytes = Vec::new();
                File::open(from)
                    .and_then(|mut file| file.read_to_end(&mut bytes))
                    .map_err(|source| Error::Read { path: from.clone(), source })?;
                let mut header = header(EntryType::Regular, *mode, bytes.len());
                tar.append_data(&mut header, path, bytes.as_slice()).map_err(at(path))?;
            }
            Entry::Text(path, text) => {
                let mut header = header(EntryType::Regular, 0o644, text.len());
                tar.append_data(&mut header, path, text.as_bytes()).map_err(at(path))?;
            }
            Entry::Link(path, to) => {
                let mut header = header(EntryType::Symlink, 0o777, 0);
                tar.append_link(&mut header, path, Path::new(to)).map_err(at(path))?;
            }
        }
    }
    tar.into_inner().map_err(at("the end"))
}

fn at(path: &str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Write { path: path.to_owned(), source }
}

/// Root's, and without a time: the same content is the same layer.
fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}

fn append<W: Write>(tar: &mut Builder<W>, path: &str, bytes: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, 0o644, bytes.len());
    tar.append_data(&mut header, path, bytes).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let image = Image {
            names: vec!["example.org/a:1".to_owned(), "example.org/a:2".to_owned()],
            entries: vec![
                Entry::Folder("etc".to_owned(), 0o755),
                Entry::Text("etc/motd".to_owned(), "hello\n".to_owned()),
                Entry::Link("bin".to_owned(), "usr/bin".to_owned()),
            ],
            entrypoint: vec!["/a".to_owned()],
            ..Image::default()
        };
        let mut archive = Archive::new(Vec::new()).expect("memory can be written");
        archive.add(&image).expect("the image reads no file");
        archive.finish().expect("memory can be written")
    }

    /// Every blob is what its name says, and the index leads to the layer.
    #[test]
    fn an_archive_holds_together() {
        let bytes = archive();
        let mut files = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().expect("it is an archive") {
            let mut entry = entry.expect("it is whole");
            let path = entry.path().expect("it has a path").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("it can be read");
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(name, digest(&content));
            }
            files.insert(path, content);
        }
        let read = |path: &str| -> serde_json::Value { serde_json::from_slice(&files[path]).expect("it is JSON") };
        let blob = |digest: &serde_json::Value| {
            format!("blobs/{}", digest.as_str().expect("a digest is text").replace(':', "/"))
        };
        let index = read("index.json");
        let manifests = index["manifests"].as_array().expect("there are manifests");
        let names: Vec<_> =
            manifests.iter().map(|entry| entry["annotations"]["io.containerd.image.name"].clone()).collect();
        assert_eq!(names, ["example.org/a:1", "example.org/a:2"]);
        let manifest = read(&blob(&manifests[0]["digest"]));
        let config = read(&blob(&manifest["config"]["digest"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let layer = &files[&blob(&manifest["layers"][0]["digest"])];
        assert_eq!(manifest["layers"][0]["size"], layer.len());
        let mut layer = tar::Archive::new(layer.as_slice());
        let paths: Vec<String> = layer
            .entries()
            .expect("it is an archive")
            .map(|entry| entry.expect("it is whole").path().expect("it has a path").display().to_string())
            .collect();
        assert_eq!(paths, ["etc", "etc/motd", "bin"]);
    }

    #[test]
    fn the_same_image_is_the_same_bytes() {
        assert_eq!(archive(), archive());
    }
}
