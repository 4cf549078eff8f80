// Keys and certificates of a test cluster: one authority, a certificate for
// each who speaks or serves, and the key that tokens are signed with. What is
// wanted comes in as JSON; the files go into the folder that is named.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

type wanted struct {
	// Client certificates: who is a user, and of which group.
	Clients []struct{ File, User, Group string }
	// Serving certificates: the names and addresses that they are for.
	Servers []struct {
		File  string
		Names []string
	}
}

// lifetime is longer than any test cluster lives.
const lifetime = 10 * 365 * 24 * time.Hour

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintf(os.Stderr, "usage: %s FOLDER < wanted.json\n", os.Args[0])
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(folder string) error {
	var all wanted
	if err := json.NewDecoder(os.Stdin).Decode(&all); err != nil {
		return fmt.Errorf("what is wanted is no JSON: %w", err)
	}
	authority, err := newAuthority(folder)
	if err != nil {
		return err
	}
	for _, client := range all.Clients {
		template := &x509.Certificate{
			Subject:     pkix.Name{CommonName: client.User},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		if client.Group != "" {
			template.Subject.Organization = []string{client.Group}
		}
		if err := authority.sign(client.File, template); err != nil {
			return err
		}
	}
	for _, server := range all.Servers {
		template := &x509.Certificate{
			Subject:     pkix.Name{CommonName: server.File},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		for _, name := range server.Names {
			if address := net.ParseIP(name); address != nil {
				template.IPAddresses = append(template.IPAddresses, address)
			} else {
				template.DNSNames = append(template.DNSNames, name)
			}
		}
		if err := authority.sign(server.File, template); err != nil {
			return err
		}
	}
	return accounts(folder)
}

type authority struct {
	folder      string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(folder string) (*authority, error) {
	key, err := newKey(folder, "ca")
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "sluice-test-ca"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	made := &authority{folder: folder, certificate: template, key: key}
	der, err := made.certify("ca", template, key)
	if err != nil {
		return nil, err
	}
	made.certificate, err = x509.ParseCertificate(der)
	return made, err
}

// sign makes a key, and a certificate of it as the template says.
func (a *authority) sign(file string, template *x509.Certificate) error {
	key, err := newKey(a.folder, file)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	_, err = a.certify(file, template, key)
	return err
}

func (a *authority) certify(file string, template *x509.Certificate, key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	// A clock that is set back a little does not make it invalid.
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(lifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return der, write(a.folder, file+".crt", "CERTIFICATE", der)
}

// accounts makes the key that the apiserver signs service accounts' tokens with. Its private
// half is written last: where it is, everything is.
func accounts(folder string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := write(folder, "sa.pub", "PUBLIC KEY", public); err != nil {
		return err
	}
	return writeKey(folder, "sa", key)
}

func newKey(folder, file string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return key, writeKey(folder, file, key)
}

func writeKey(folder, file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return write(folder, file+".key", "PRIVATE KEY", der)
}

func write(folder, file, kind string, der []byte) error {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	return os.WriteFile(filepath.Join(folder, file), text, 0o600)
}
