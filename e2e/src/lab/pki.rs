//! The cluster's certificates: one authority, and a certificate for everybody who talks to the API server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// Who a certificate is for: what the API server takes for user and group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) user: &'a str,
    pub(super) group: Option<&'a str>,
}

/// The authority, and the folder with all certificates and keys.
pub(super) struct Pki {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Makes the authority (`ca.crt`, `ca.key`) and the key that signs the tokens of ServiceAccounts (`sa.key`,
    /// `sa.pub`).
    pub(super) fn create(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut params = parameters(Subject { user: "sluice-lab", group: None }, Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = Vec::new();
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = params.self_signed(&key).context("cannot make the authority")?;
        let accounts = KeyPair::generate().context("cannot make a key")?;
        for (name, text) in [
            ("ca.crt", certificate.pem()),
            ("ca.key", key.serialize_pem()),
            ("sa.key", accounts.serialize_pem()),
            ("sa.pub", accounts.public_key_pem()),
        ] {
            write(&folder.join(name), &text)?;
        }
        Ok(Self { folder, issuer: Issuer::new(params, key) })
    }

    /// Makes `NAME.crt` and `NAME.key`, for clients and servers alike; `names` are the server's.
    pub(super) fn issue(&self, name: &str, subject: Subject<'_>, names: Vec<String>) -> Result<()> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = parameters(subject, names)?
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("cannot sign the certificate {name}"))?;
        write(&self.folder.join(format!("{name}.crt")), &certificate.pem())?;
        write(&self.folder.join(format!("{name}.key")), &key.serialize_pem())
    }

    /// As [`Self::issue`], and a kubeconfig for it, whose place is returned.
    pub(super) fn client(&self, name: &str, subject: Subject<'_>, names: Vec<String>, server: &str) -> Result<PathBuf> {
        self.issue(name, subject, names)?;
        let folder = self.folder.display();
        let path = self.folder.join(format!("{name}.kubeconfig"));
        let text = format!(
            r#"apiVersion: v1
kind: Config
clusters: [{{name: lab, cluster: {{server: "{server}", certificate-authority: "{folder}/ca.crt"}}}}]
users: [{{name: "{name}", user: {{client-certificate: "{folder}/{name}.crt", client-key: "{folder}/{name}.key"}}}}]
contexts: [{{name: lab, context: {{cluster: lab, user: "{name}"}}}}]
current-context: lab
"#
        );
        write(&path, &text)?;
        Ok(path)
    }

    /// Where the files are.
    pub(super) fn folder(&self) -> String {
        self.folder.display().to_string()
    }
}

fn parameters(subject: Subject<'_>, names: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names).context("not a name for a certificate")?;
    params.distinguished_name = DistinguishedName::new();
    if let Some(group) = subject.group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, subject.user);
    // Whatever this machine's clock says, and longer than any lab.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
