// Prints a token for one call, made from a caller's key:
//
//	go run . -key alice.jwk
//
// A token is a compact JWE (dir, A256GCM) that names caller, server and time. Any JOSE library makes one.
package main

import (
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const lifetime = 60 * time.Second // at most 300 s

// keyFile is what `rexec-server keys new` writes beside the key itself.
type keyFile struct {
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
}

type claims struct {
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	ID       string `json:"jti"`
	Scope    string `json:"scope,omitempty"`
}

func main() {
	path := flag.String("key", "", "the caller's key `file`")
	caller := flag.String("caller", "", "whose key it is, if the file does not say")
	audience := flag.String("audience", "", "the server's name, if the file does not say")
	read := flag.Bool("read", false, "a token that starts and ends nothing")
	flag.Parse()
	if *path == "" {
		flag.Usage()
		os.Exit(2)
	}
	token, err := newToken(*path, *caller, *audience, *read)
	if err != nil {
		fmt.Fprintln(os.Stderr, "token:", err)
		os.Exit(1)
	}
	fmt.Println(token)
}

func newToken(path, caller, audience string, read bool) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var key jose.JSONWebKey
	var file keyFile
	if err := json.Unmarshal(data, &key); err != nil {
		return "", fmt.Errorf("%s is no caller's key: %w", path, err)
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return "", fmt.Errorf("%s is no caller's key: %w", path, err)
	}
	caller, audience = first(caller, file.Subject), first(audience, file.Audience)
	if caller == "" || audience == "" {
		return "", fmt.Errorf("%s does not say whose key it is, or for which server: give -caller and -audience", path)
	}
	payload, err := json.Marshal(newClaims(caller, audience, read))
	if err != nil {
		return "", err
	}
	recipient := jose.Recipient{Algorithm: jose.DIRECT, Key: key.Key, KeyID: key.KeyID}
	encrypter, err := jose.NewEncrypter(jose.A256GCM, recipient, nil)
	if err != nil {
		return "", err
	}
	token, err := encrypter.Encrypt(payload)
	if err != nil {
		return "", err
	}
	return token.CompactSerialize()
}

func newClaims(caller, audience string, read bool) claims {
	now := time.Now()
	made := claims{
		Subject:  caller,
		Audience: audience,
		IssuedAt: now.Unix(),
		Expires:  now.Add(lifetime).Unix(),
		ID:       rand.Text(), // 128 bits: a token starts one command
	}
	if read {
		made.Scope = "read"
	}
	return made
}

func first(given, otherwise string) string {
	if given != "" {
		return given
	}
	return otherwise
}
