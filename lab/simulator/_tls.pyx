# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3
"""The server's half of TLS over memory BIOs, with what Python's ssl lacks: chosen record ends, KeyUpdate, padding."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from tickpath.errors import InputError, TickpathError


cdef extern from "<openssl/ssl.h>" nogil:
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct BIO:
        pass
    ctypedef struct BIO_METHOD:
        pass
    ctypedef struct X509:
        pass
    ctypedef struct EVP_PKEY:
        pass
    int TLS1_2_VERSION
    int TLS1_3_VERSION
    int SSL_ERROR_WANT_READ
    int SSL_ERROR_ZERO_RETURN
    int SSL_KEY_UPDATE_NONE
    int SSL_KEY_UPDATE_NOT_REQUESTED
    int SSL_KEY_UPDATE_REQUESTED
    unsigned long SSL_OP_NO_RENEGOTIATION
    const SSL_METHOD *TLS_server_method()
    SSL_CTX *SSL_CTX_new(const SSL_METHOD *)
    void SSL_CTX_free(SSL_CTX *)
    int SSL_CTX_set_min_proto_version(SSL_CTX *, int)
    int SSL_CTX_set_max_proto_version(SSL_CTX *, int)
    unsigned long SSL_CTX_set_options(SSL_CTX *, unsigned long)
    int SSL_CTX_use_certificate(SSL_CTX *, X509 *)
    int SSL_CTX_use_PrivateKey(SSL_CTX *, EVP_PKEY *)
    SSL *SSL_new(SSL_CTX *)
    void SSL_free(SSL *)
    void SSL_set_accept_state(SSL *)
    void SSL_set_bio(SSL *, BIO *, BIO *)
    int SSL_set_block_padding(SSL *, size_t)
    int SSL_do_handshake(SSL *)
    int SSL_is_init_finished(const SSL *)
    int SSL_read(SSL *, void *, int)
    int SSL_write(SSL *, const void *, int)
    int SSL_shutdown(SSL *)
    int SSL_get_error(const SSL *, int)
    int SSL_key_update(SSL *, int)
    int SSL_get_key_update_type(const SSL *)
    const char *SSL_get_version(const SSL *)


cdef extern from "<openssl/bio.h>" nogil:
    BIO *BIO_new(const BIO_METHOD *)
    const BIO_METHOD *BIO_s_mem()
    BIO *BIO_new_mem_buf(const void *, int)
    int BIO_free(BIO *)
    int BIO_read(BIO *, void *, int)
    int BIO_write(BIO *, const void *, int)
    size_t BIO_ctrl_pending(BIO *)


cdef extern from "<openssl/pem.h>" nogil:
    X509 *PEM_read_bio_X509(BIO *, X509 **, void *, void *)
    EVP_PKEY *PEM_read_bio_PrivateKey(BIO *, EVP_PKEY **, void *, void *)
    void X509_free(X509 *)
    void EVP_PKEY_free(EVP_PKEY *)


cdef extern from "<openssl/err.h>" nogil:
    unsigned long ERR_get_error()
    void ERR_clear_error()
    const char *ERR_reason_error_string(unsigned long)


cdef enum:
    READ_BYTES = 16384


cdef str _reason():
    cdef const char *text = NULL
    cdef unsigned long code = ERR_get_error()
    if code != 0:
        text = ERR_reason_error_string(code)
    ERR_clear_error()
    return text.decode() if text != NULL else "no reason given"


cdef class Context:
    """One certificate and one protocol version, for any number of sessions."""

    cdef SSL_CTX *context

    def __cinit__(self, bytes certificate_pem, bytes key_pem, str version):
        cdef int number = TLS1_2_VERSION if version == "1.2" else TLS1_3_VERSION
        cdef BIO *pem
        cdef X509 *certificate = NULL
        cdef EVP_PKEY *key = NULL
        cdef int taken = 0
        ERR_clear_error()
        self.context = SSL_CTX_new(TLS_server_method())
        if self.context == NULL:
            raise MemoryError
        SSL_CTX_set_options(self.context, SSL_OP_NO_RENEGOTIATION)
        if not (SSL_CTX_set_min_proto_version(self.context, number)
                and SSL_CTX_set_max_proto_version(self.context, number)):
            raise TickpathError(f"this OpenSSL does not speak TLS {version}: {_reason()}")
        pem = BIO_new_mem_buf(PyBytes_AS_STRING(certificate_pem), <int>PyBytes_GET_SIZE(certificate_pem))
        if pem != NULL:
            certificate = PEM_read_bio_X509(pem, NULL, NULL, NULL)
            BIO_free(pem)
        pem = BIO_new_mem_buf(PyBytes_AS_STRING(key_pem), <int>PyBytes_GET_SIZE(key_pem))
        if pem != NULL:
            key = PEM_read_bio_PrivateKey(pem, NULL, NULL, NULL)
            BIO_free(pem)
        if certificate != NULL and key != NULL:
            taken = (SSL_CTX_use_certificate(self.context, certificate) == 1
                     and SSL_CTX_use_PrivateKey(self.context, key) == 1)
        if certificate != NULL:
            X509_free(certificate)
        if key != NULL:
            EVP_PKEY_free(key)
        if not taken:
            raise TickpathError(f"OpenSSL refuses the server's certificate: {_reason()}")

    def __dealloc__(self):
        if self.context != NULL:
            SSL_CTX_free(self.context)


cdef class Session:
    """One connection. Bytes from the client go into `open`, bytes for it come out of `seal` and `answer`."""

    cdef SSL *ssl
    cdef BIO *incoming
    cdef BIO *outgoing
    cdef readonly bint established

    def __cinit__(self, Context context, size_t pad_bytes=0):
        self.ssl = SSL_new(context.context)
        self.incoming = BIO_new(BIO_s_mem())
        self.outgoing = BIO_new(BIO_s_mem())
        if self.ssl == NULL or self.incoming == NULL or self.outgoing == NULL:
            raise MemoryError
        SSL_set_bio(self.ssl, self.incoming, self.outgoing)  # both are the session's from here on
        SSL_set_accept_state(self.ssl)
        if pad_bytes and SSL_set_block_padding(self.ssl, pad_bytes) != 1:
            raise TickpathError(f"OpenSSL does not pad to {pad_bytes} bytes: {_reason()}")

    def __dealloc__(self):
        if self.ssl != NULL:
            SSL_free(self.ssl)
        else:
            # Those that SSL_set_bio never took over.
            if self.incoming != NULL:
                BIO_free(self.incoming)
            if self.outgoing != NULL:
                BIO_free(self.outgoing)

    @property
    def version(self):
        return SSL_get_version(self.ssl).decode()

    def open(self, bytes data not None):
        cdef char buffer[READ_BYTES]
        cdef int count
        ERR_clear_error()
        if BIO_write(self.incoming, PyBytes_AS_STRING(data), <int>PyBytes_GET_SIZE(data)) != PyBytes_GET_SIZE(data):
            raise MemoryError
        if not self.established:
            count = SSL_do_handshake(self.ssl)
            if count != 1:
                self._check(count)
                return b""
            self.established = True
        parts = []
        while True:
            count = SSL_read(self.ssl, buffer, READ_BYTES)
            if count <= 0:
                break
            parts.append(PyBytes_FromStringAndSize(buffer, count))
        self._check(count)
        return b"".join(parts)

    cdef int _check(self, int result) except -1:
        cdef int kind = SSL_get_error(self.ssl, result)
        if kind != SSL_ERROR_WANT_READ and kind != SSL_ERROR_ZERO_RETURN:
            raise InputError(f"TLS: {_reason()}")
        return 0

    cdef bytes _take(self):
        cdef size_t pending = BIO_ctrl_pending(self.outgoing)
        cdef bytes taken = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>pending)
        if pending:
            BIO_read(self.outgoing, PyBytes_AS_STRING(taken), <int>pending)
        return taken

    def answer(self):
        ERR_clear_error()
        # OpenSSL keeps a KeyUpdate back until it next writes; sent here, it never shares the bytes of a message.
        if self.established and SSL_get_key_update_type(self.ssl) != SSL_KEY_UPDATE_NONE:
            self._check_done(SSL_do_handshake(self.ssl))
        return self._take()

    cdef int _check_done(self, int result) except -1:
        if result != 1:
            raise InputError(f"TLS: {_reason()}")
        return 0

    def seal(self, bytes plain not None):
        ERR_clear_error()
        if SSL_write(self.ssl, PyBytes_AS_STRING(plain), <int>PyBytes_GET_SIZE(plain)) != PyBytes_GET_SIZE(plain):
            raise InputError(f"TLS: {_reason()}")
        return self._take()

    def update_key(self, bint request):
        ERR_clear_error()
        self._check_done(SSL_key_update(
            self.ssl, SSL_KEY_UPDATE_REQUESTED if request else SSL_KEY_UPDATE_NOT_REQUESTED))

    def farewell(self):
        if self.established:
            ERR_clear_error()
            SSL_shutdown(self.ssl)
        return self._take()
