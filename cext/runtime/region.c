#include "region.h"

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

static size_t round_up(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

static void account(tether_region_t *region, int regions, size_t added, size_t removed)
{
    add_relaxed(&region->rt->regions, (uint32_t)regions);
    add_relaxed(&region->rt->bytes_mapped, (uint64_t)added - (uint64_t)removed);
}

static int map(tether_region_t *region, tether_runtime_t *rt, tether_pages_t kind, size_t lead, size_t size, size_t granule,
               int fd, uint64_t offset, bool write)
{
    if (size > SIZE_MAX / 2 - lead)
        return ENOMEM;
    *region = (tether_region_t){.rt = rt, .kind = kind, .granule = granule, .may_write = write};
    region->access = write ? TETHER_ACCESS_WRITE : TETHER_ACCESS_READ;
    region->mapped = round_up(lead + size, granule);
    int error = tether_pages_map(kind, region->mapped, granule, fd, offset, region->access, &region->base);
    if (error != 0)
        return error;
    region->lead = lead;
    region->data = region->base + lead;
    region->nbytes = size;
    region->origin = add_relaxed(&rt->mappings, 1) + 1;
    account(region, 1, region->mapped, 0);
    return 0;
}

int tether_region_map(tether_region_t *region, tether_runtime_t *rt, size_t size, bool huge)
{
    int error = map(region, rt, TETHER_PAGES_OWN, 0, size, huge ? tether_huge_page_size() : tether_page_size(), -1, 0, true);
    if (error == 0 && huge)
        tether_pages_advise(region->base, region->mapped, TETHER_ADVICE_HUGE); /* a wish: a kernel without them has pages */
    return error;
}

static void drop_file(tether_file_t *file)
{
    if (file != NULL && sub_acq_rel(&file->refs, 1) == 1) {
        close(file->fd);
        tether_free(file);
    }
}

int tether_region_map_shared(tether_region_t *region, tether_runtime_t *rt, size_t size, const char *name)
{
    tether_file_t *file = tether_alloc(sizeof *file);
    if (file == NULL)
        return ENOMEM;
    int error = tether_memory_file(name, round_up(size, tether_page_size()), &file->fd);
    if (error != 0) {
        tether_free(file);
        return error;
    }
    store_relaxed(&file->refs, 1u);
    error = map(region, rt, TETHER_PAGES_SHARED, 0, size, tether_page_size(), file->fd, 0, true);
    if (error != 0)
        drop_file(file);
    else
        region->file = file;
    return error;
}

int tether_region_map_file(tether_region_t *region, tether_runtime_t *rt, int fd, uint64_t offset, size_t size,
                           tether_pages_t kind, bool write)
{
    size_t lead = (size_t)(offset % tether_page_size());
    return map(region, rt, kind, lead, size, tether_page_size(), fd, offset - lead, write);
}

tether_status_t tether_region_seize(tether_thread_t *thread, tether_region_t *region, tether_blame_t *blame, void *arg)
{
    if (atomic_exchange_explicit(&region->seized, true, memory_order_acquire)) { /* by another thread, a moment ago */
        tether_loan_t theirs = {.stop = region->nbytes, .exclusive = true, .state = TETHER_LOAN_LIVE};
        if (blame != NULL)
            blame(&theirs, arg);
        return TETHER_CONFLICT;
    }
    tether_loan_t *whole = &region->whole;
    whole->start = 0;
    whole->stop = region->nbytes;
    whole->exclusive = true;
    tether_status_t status = tether_borrow(thread, &region->book, &whole, 1, blame, arg);
    if (status == TETHER_OK)
        tether_loan_move(thread, whole, NULL); /* no task's: it may stay for ever, and ends with none */
    else
        store_release(&region->seized, false);
    return status;
}

void tether_region_let_go(tether_thread_t *thread, tether_region_t *region)
{
    tether_loan_forget(thread, &region->whole);
    store_release(&region->seized, false);
}

int tether_region_unmap(tether_region_t *region)
{
    int error = tether_pages_unmap(region->base, region->mapped);
    if (error != 0)
        return error;
    account(region, -1, 0, region->mapped);
    drop_file(region->file);
    region->file = NULL;
    region->base = region->data = NULL;
    return 0;
}

int tether_region_protect(tether_region_t *region, tether_access_t access)
{
    /* Shielded, it is all open at this moment, and each page gets its rights when it is lent. */
    int error = region->book.shield ? 0 : tether_pages_protect(region->base, region->mapped, access);
    if (error == 0)
        region->access = access;
    return error;
}

/* The pages that hold bytes start..stop: each as it is lent now. Called under the book's lock. */
static int shield(tether_book_t *book, size_t start, size_t stop)
{
    tether_region_t *region = (tether_region_t *)((char *)book - offsetof(tether_region_t, book));
    size_t page = tether_page_size(), lead = region->lead;
    size_t first = (lead + start) / page * page, last = round_up(lead + stop, page), run = first;
    tether_access_t current = TETHER_ACCESS_NONE;
    for (size_t at = first; at <= last; at += page) {
        tether_access_t access = TETHER_ACCESS_NONE;
        if (at < last) {
            access = tether__book_access(book, at > lead ? at - lead : 0, at + page - lead);
            access = access > region->access ? region->access : access;
        }
        if (at > run && (access != current || at == last)) {
            int error = tether_pages_protect(region->base + run, at - run, current);
            if (error != 0)
                return error;
            run = at;
        }
        current = access;
    }
    return 0;
}

int tether_region_shield(tether_region_t *region)
{
    int error = tether_pages_protect(region->base, region->mapped, TETHER_ACCESS_NONE);
    if (error == 0)
        region->book.shield = shield;
    return error;
}

bool tether_region_may_cut(const tether_region_t *region, size_t offset)
{
    size_t at = region->lead + offset;
    return offset > 0 && offset < region->nbytes && at % region->granule == 0;
}

/* A new region over a part of what another one had. */
static void take_over(tether_region_t *to, const tether_region_t *from, char *base, size_t mapped, char *data, size_t nbytes)
{
    *to = (tether_region_t){.rt = from->rt, .base = base, .mapped = mapped, .data = data, .nbytes = nbytes,
                            .lead = (size_t)(data - base), .granule = from->granule, .origin = from->origin, .kind = from->kind,
                            .may_write = from->may_write, .access = from->access, .file = from->file};
    to->book.shield = from->book.shield;
    if (to->file != NULL)
        add_relaxed(&to->file->refs, 1);
    account(to, 1, 0, 0);
}

static void consume(tether_region_t *region)
{
    account(region, -1, 0, 0);
    drop_file(region->file);
    region->file = NULL;
    region->base = region->data = NULL;
}

static int close_pages(tether_region_t *region)
{
    return region->book.shield ? tether_pages_protect(region->base, region->mapped, TETHER_ACCESS_NONE) : 0;
}

int tether_region_cut(tether_region_t *region, size_t offset, tether_region_t *left, tether_region_t *right)
{
    int error = close_pages(region);
    if (error != 0)
        return error;
    char *at = region->data + offset;
    size_t before = (size_t)(at - region->base);
    take_over(left, region, region->base, before, region->data, offset);
    take_over(right, region, at, region->mapped - before, at, region->nbytes - offset);
    consume(region);
    return 0;
}

bool tether_region_may_merge(const tether_region_t *left, const tether_region_t *right)
{
    return left->origin == right->origin && left->data + left->nbytes == right->data && left->base + left->mapped == right->base &&
           left->access == right->access && left->book.shield == right->book.shield;
}

int tether_region_merge(tether_region_t *left, tether_region_t *right, tether_region_t *whole)
{
    int error = close_pages(left);
    if (error == 0)
        error = close_pages(right);
    if (error != 0)
        return error;
    take_over(whole, left, left->base, left->mapped + right->mapped, left->data, left->nbytes + right->nbytes);
    consume(left);
    consume(right);
    return 0;
}

size_t tether_region_part(const tether_region_t *region, size_t start, size_t stop, size_t i, size_t n)
{
    size_t bytes = stop - start, unit = region->granule;
    size_t lead = (region->lead + start) % unit;
    if (i == 0)
        return start;
    if (i >= n)
        return stop;
    if (lead != 0 || bytes / unit / n < 64)
        unit = 1;
    size_t units = bytes / unit;
    /* The first units % n parts have one more; the last part also has the bytes that are no whole unit. */
    size_t more = units % n < i ? units % n : i;
    return start + (units / n * i + more) * unit;
}
