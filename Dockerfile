# The program alone, static, for an unprivileged user. Build it at the root of
# the repository: docker build -t postrider .
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /out/usr/bin/postrider ./cmd/postrider \
	&& mkdir -p /out/var/lib/postrider /out/var/lib/postrider-keys /out/etc/ssl/certs \
	&& cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
	&& chown -R 10001:10001 /out/var/lib/postrider /out/var/lib/postrider-keys

FROM scratch
COPY --from=build /out /
USER 10001:10001
ENV POSTRIDER_DATA=/var/lib/postrider
VOLUME /var/lib/postrider
EXPOSE 587 465 2525
ENTRYPOINT ["/usr/bin/postrider"]
CMD ["serve"]
