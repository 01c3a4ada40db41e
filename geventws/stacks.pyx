# cython: language_level=3
"""Keeping the memory of ended greenlets for the next ones: the compiled twin of stacks.py.

CPython asks its arena allocator, which may be replaced (PyObject_SetArenaAllocator), for the pieces that
frames live in. The one here keeps pieces of that one size, up to a limit, and passes on everything else.
"""

__all__ = ["count_kept", "keep_stacks"]

cdef extern from *:
    """
    /* DATA_STACK_CHUNK_SIZE of CPython. Where it is another one, nothing is kept and all goes on as before. */
    #define GWS_PIECE (16 * 1024)
    #define GWS_MAX_KEPT 128

    static PyObjectArenaAllocator gws_below;
    static void *gws_kept[GWS_MAX_KEPT];
    static int gws_count = 0;
    static int gws_installed = 0;
    /* Interpreters with a lock of their own share the allocator: who finds it in use goes past it. */
    static int gws_busy = 0;

    static void *gws_alloc(void *context, size_t size) {
        void *piece = NULL;
        if (size == GWS_PIECE && !__sync_lock_test_and_set(&gws_busy, 1)) {
            if (gws_count > 0)
                piece = gws_kept[--gws_count];
            __sync_lock_release(&gws_busy);
        }
        return piece != NULL ? piece : gws_below.alloc(gws_below.ctx, size);
    }

    static void gws_free(void *context, void *piece, size_t size) {
        int kept = 0;
        if (size == GWS_PIECE && !__sync_lock_test_and_set(&gws_busy, 1)) {
            if (gws_count < GWS_MAX_KEPT) {
                gws_kept[gws_count++] = piece;
                kept = 1;
            }
            __sync_lock_release(&gws_busy);
        }
        if (!kept)
            gws_below.free(gws_below.ctx, piece, size);
    }

    static void gws_install(void) {
        PyObjectArenaAllocator own = {NULL, gws_alloc, gws_free};
        if (gws_installed)
            return;
        gws_installed = 1;
        PyObject_GetArenaAllocator(&gws_below);
        PyObject_SetArenaAllocator(&own);
    }
    """
    const int GWS_MAX_KEPT
    int gws_count
    void gws_install()

MAX_KEPT = GWS_MAX_KEPT


cpdef keep_stacks():
    gws_install()


cpdef int count_kept():
    return gws_count
