//! Sluice as docs/install.md has it, with another image: kustomizations that refer to those in `manifests/`.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Error, Result, ensure};

use crate::{
    bed::registry::{Lease, Resource, unique_name},
    lab::sluice::manifests,
};

/// The image's name in the manifests.
const NAME: &str = "sluice-agent";

/// A reference to an image: `[REGISTRY/]NAME[:TAG][@DIGEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    name: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl FromStr for Image {
    type Err = Error;

    fn from_str(reference: &str) -> Result<Self, Error> {
        let (rest, digest) = match reference.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (reference, None),
        };
        // A colon before the last slash is that of the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let is_word = |word: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte);
            !word.is_empty() && word.bytes().all(is_plain)
        };
        let is_whole = [Some(name), tag, digest].into_iter().flatten().all(is_word);
        ensure!(is_whole, "an image is named [REGISTRY/]NAME[:TAG][@DIGEST], not {reference:?}");
        let [tag, digest] = [tag, digest].map(|part| part.map(str::to_owned));
        Ok(Self { name: name.to_owned(), tag, digest })
    }
}

/// A folder with the kustomizations, which goes when this is dropped.
#[derive(Debug)]
pub struct Overlay {
    folder: PathBuf,
    _lease: Lease,
}

impl Overlay {
    /// Without an image it is that of the manifests.
    ///
    /// # Errors
    /// If the folder can't be made.
    pub fn create(image: Option<&Image>) -> Result<Self> {
        let folder = std::env::temp_dir().join(unique_name("install"));
        let lease = Lease::new(Resource::Folder(folder.clone()));
        for name in ["base", "cleanup"] {
            let own = folder.join(name);
            fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
            let own = own.canonicalize().context("the folder has just been made")?;
            let text = kustomization(&own, Path::new(&manifests(name)), image);
            fs::write(own.join("kustomization.yaml"), text).context("cannot write a kustomization")?;
        }
        Ok(Self { folder, _lease: lease })
    }

    /// What is applied.
    #[must_use]
    pub fn installation(&self) -> String {
        self.folder.join("base").display().to_string()
    }

    /// What takes Sluice off every node.
    #[must_use]
    pub fn cleanup(&self) -> String {
        self.folder.join("cleanup").display().to_string()
    }
}

/// A kustomization in `own` of the one in `of`, which may only be referred to from where it is.
fn kustomization(own: &Path, of: &Path, image: Option<&Image>) -> String {
    // The way up to the root, and down again.
    let up = "../".repeat(own.components().count().saturating_sub(1));
    let way = format!("{up}{}", of.display().to_string().trim_start_matches('/'));
    let mut text = format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [{way:?}]\n");
    if let Some(Image { name, tag, digest }) = image {
        text += &format!("images:\n  - name: {NAME}\n    newName: {name:?}\n");
        // Kustomize takes one of them.
        match (digest, tag) {
            (Some(digest), _) => text += &format!("    digest: {digest:?}\n"),
            (None, Some(tag)) => text += &format!("    newTag: {tag:?}\n"),
            (None, None) => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reference: &str, name: &str, tag: Option<&str>, digest: Option<&str>) {
        let [tag, digest] = [tag, digest].map(|part| part.map(str::to_owned));
        let image: Image = reference.parse().expect("it is a reference");
        assert_eq!(image, Image { name: name.to_owned(), tag, digest }, "{reference}");
    }

    #[test]
    fn references_are_taken_apart() {
        check("sluice-agent", "sluice-agent", None, None);
        check("sluice-agent:1.2", "sluice-agent", Some("1.2"), None);
        check("example.com:5000/a/sluice", "example.com:5000/a/sluice", None, None);
        check("example.com:5000/a/sluice:1", "example.com:5000/a/sluice", Some("1"), None);
        check("a/b@sha256:00ff", "a/b", None, Some("sha256:00ff"));
        check("a/b:1@sha256:00ff", "a/b", Some("1"), Some("sha256:00ff"));
        for wrong in ["", ":1", "a:", "a b", "a\n", "a@"] {
            assert!(wrong.parse::<Image>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_manifests_are_referred_to_from_the_root() {
        let (own, of) = (Path::new("/tmp/x/base"), Path::new("/home/me/sluice/manifests/base"));
        let head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
                    resources: [\"../../../home/me/sluice/manifests/base\"]\n";
        assert_eq!(kustomization(own, of, None), head);
        let image = "example.com/sluice:2".parse().expect("it is a reference");
        let images = "images:\n  - name: sluice-agent\n    newName: \"example.com/sluice\"\n    newTag: \"2\"\n";
        assert_eq!(kustomization(own, of, Some(&image)), format!("{head}{images}"));
    }
}
