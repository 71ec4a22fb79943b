# Safe's image: the program and nothing else. There is no shell, no package and no base
# image in it, and building it takes neither a network nor a registry.
#
#     VERSION=v1.2.3 hack/build safe bin/safe
#     cp /etc/ssl/certs/ca-certificates.crt bin/
#     buildah bud -t registry.example.com/vsecm/safe:v1.2.3 -f Dockerfile bin
#
# hack/build makes the program static, and the same source always the same bytes; the context
# is the folder that it was built into. `docker build` takes the same arguments.
#
# A release has an image that is laid out alike and made without this file (release/image),
# whose bytes do not depend on the machine.
FROM scratch

# Git over HTTPS is checked against these: the builder's. Safe's other connections do not
# use them: SPIFFE and Kubernetes bring authorities of their own. To trust others,
# put another file there, or mount one over it.
COPY --chown=0:0 --chmod=0444 ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --chown=0:0 --chmod=0555 safe /safe

# By number: there is no /etc/passwd, and runAsNonRoot cannot judge a name.
USER 65532:65532

EXPOSE 8443 8081 8082 9090
ENTRYPOINT ["/safe"]
CMD ["serve"]
