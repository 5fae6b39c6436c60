//! Signs plugins, and verifies their signatures. Like `cert` it makes and reads text and touches no files.

use rcgen::KeyPair;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use rejoin_proto::signing::signed_message;
use rejoin_proto::{Name, PluginDigest, PluginSignature, SignerKey};

use crate::Error;

/// The private key of somebody who signs plugins.
pub struct SigningKey(Ed25519KeyPair);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}

impl SigningKey {
    /// Makes a key. Returns its text (PEM, PKCS#8), which is secret.
    ///
    /// # Errors
    /// [`Error::Issue`] if the system gives no randomness.
    pub fn generate() -> Result<String, Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(|error| Error::Issue(error.to_string()))?;
        Ok(key.serialize_pem())
    }

    /// Reads the text of a key.
    ///
    /// # Errors
    /// [`Error::BadPem`] if it is none of an Ed25519 key.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let bad = |why: String| Error::BadPem { what: "the signing key", why };
        let key = KeyPair::from_pem(pem).map_err(|error| bad(error.to_string()))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.serialized_der());
        pair.map(Self).map_err(|why| bad(format!("it is no Ed25519 key: {why}")))
    }

    /// The public part of it.
    #[must_use]
    pub fn public(&self) -> SignerKey {
        let mut key = [0; 32];
        // A public key of Ed25519 has 32 bytes.
        key.copy_from_slice(self.0.public_key().as_ref());
        SignerKey(key)
    }

    /// Signs a component for a tenant.
    #[must_use]
    pub fn sign(&self, tenant: &Name, digest: &PluginDigest) -> PluginSignature {
        let signature = self.0.sign(&signed_message(tenant, digest));
        let mut bytes = [0; 64];
        // A signature of Ed25519 has 64 bytes.
        bytes.copy_from_slice(signature.as_ref());
        PluginSignature::new(self.public(), &bytes)
    }
}

/// Whether a component is signed for a tenant, with the key that the signature names.
#[must_use]
pub fn is_signed(signature: &PluginSignature, tenant: &Name, digest: &PluginDigest) -> bool {
    let key = UnparsedPublicKey::new(&ED25519, &signature.signer.0);
    key.verify(&signed_message(tenant, digest), &signature.bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_signature_is_of_one_key_one_tenant_and_one_component() {
        let key = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        let (shop, digest) = (name("shop"), PluginDigest([1; 32]));
        let signature = key.sign(&shop, &digest);
        assert_eq!(signature.signer, key.public());
        assert!(is_signed(&signature, &shop, &digest));
        assert!(!is_signed(&signature, &name("shop2"), &digest));
        assert!(!is_signed(&signature, &shop, &PluginDigest([2; 32])));
        let other = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        assert_ne!(other.public(), key.public());
        assert!(!is_signed(&PluginSignature { signer: other.public(), ..signature }, &shop, &digest));
        for place in 0..64 {
            let mut bytes = signature.bytes();
            bytes[place] ^= 1;
            assert!(!is_signed(&PluginSignature::new(key.public(), &bytes), &shop, &digest), "byte {place}");
        }
        let text = signature.to_string();
        assert_eq!(text.parse(), Ok(signature));
    }

    #[test]
    fn only_a_key_of_ed25519_is_taken() {
        let of_another_kind = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        for pem in ["", "no key", &of_another_kind] {
            assert!(SigningKey::from_pem(pem).is_err(), "{pem}");
        }
        let debugged = format!("{:?}", SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap());
        assert!(debugged.starts_with("SigningKey(SignerKey(ed25519:"), "only what is public: {debugged}");
    }
}
